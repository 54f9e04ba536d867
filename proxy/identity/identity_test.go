// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/netns"
)

func TestParseParent(t *testing.T) {
	for _, tt := range []struct {
		stat string
		want int
		ok   bool
	}{
		{"12 (sh) S 7 12 12 0", 7, true},
		{"12 (a) b) (c) R 1 2", 1, true},
		{"12 (new\nline) S 44 1", 44, true},
		{"12 (sh) S", 0, false},
		{"", 0, false},
	} {
		got, err := parseParent([]byte(tt.stat))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseParent(%q) = %d, %v", tt.stat, got, err)
		}
	}
}

func FuzzParseParent(f *testing.F) {
	f.Add([]byte("12 (sh) S 7 12 12 0"))
	f.Fuzz(func(t *testing.T, b []byte) { parseParent(b) })
}

func TestSameProgramAcrossAFork(t *testing.T) {
	parent := Process{Path: "/bin/py", SHA256: "1", Ancestors: []string{"/bin/sh"}}
	child := Process{Path: "/bin/py", SHA256: "1", Ancestors: []string{"/bin/py", "/bin/sh"}}
	if !parent.sameProgram(child) {
		t.Error("a forked child is another program")
	}
	other := Process{Path: "/bin/py", SHA256: "1", Ancestors: []string{"/bin/bash"}}
	if parent.sameProgram(other) {
		t.Error("other ancestors are the same program")
	}
}

// world is a sealed namespace with a listener and a Finder.
func world(t *testing.T) (*netns.Namespace, *net.TCPListener, *Finder) {
	t.Helper()
	n, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if _, err := netns.Seal(n, nil); err != nil {
		t.Fatal(err)
	}
	l, err := n.Listen(netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := NewFinder(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return n, l, f
}

// connectAs runs a copy of bash at path inside the namespace, which connects
// to the listener and waits.
func connectAs(t *testing.T, n *netns.Namespace, l *net.TCPListener, path, script string) *net.TCPConn {
	t.Helper()
	cmd := exec.Command(path, "-c", script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func copyBash(t *testing.T, name, suffix string) string {
	t.Helper()
	b, err := os.ReadFile("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, append(b, suffix...), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func identify(f *Finder, conn *net.TCPConn) (Process, error) {
	return f.Identify(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), conn.LocalAddr().(*net.TCPAddr).AddrPort())
}

const dial = "exec 9<>/dev/tcp/127.0.0.1/8080; "

func TestIdentifyNamesBinaryAndAncestors(t *testing.T) {
	n, l, f := world(t)
	outer, inner := copyBash(t, "outer", ""), copyBash(t, "inner", "")
	conn := connectAs(t, n, l, outer, inner+" -c '"+dial+"read x'; true")
	p, err := identify(f, conn)
	if err != nil {
		t.Fatal(err)
	}
	if p.Path != inner || len(p.SHA256) != 64 || len(p.Ancestors) != 1 || p.Ancestors[0] != outer {
		t.Errorf("identity %+v, want %s under %s", p, inner, outer)
	}
}

// What a program is called in its container counts only where all that hold the
// socket are in it.
func TestAliases(t *testing.T) {
	n, l, f := world(t)
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/mnt", &own); err != nil {
		t.Fatal(err)
	}
	f.Container = func(mountNamespace uint64) string {
		if mountNamespace == own.Ino {
			return "c"
		}
		return ""
	}
	outer, inner := copyBash(t, "outer", ""), copyBash(t, "inner", "")
	p, err := identify(f, connectAs(t, n, l, outer, inner+" -c '"+dial+"read x'; true"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{Alias("c", inner), Alias("c", outer)}; !slices.Equal(p.Aliases, want) {
		t.Errorf("aliases %q, want %q", p.Aliases, want)
	}
	p, err = identify(f, connectAs(t, n, l, outer, "unshare -m "+inner+" -c '"+dial+"read x'; true"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", Alias("c", outer)}; !slices.Equal(p.Aliases, want) {
		t.Errorf("in a mount namespace of its own: aliases %q, want %q", p.Aliases, want)
	}
	// The child holds the socket, too, and has the same ancestry.
	conn := connectAs(t, n, l, outer, dial+"unshare -m "+outer+" -c 'echo ready >&9; read x'; true")
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if p, err = identify(f, conn); err != nil || p.Path != outer || p.Aliases != nil {
		t.Errorf("in two mount namespaces: %+v, %v", p, err)
	}
}

func TestSharedSocketOfTwoProgramsIsAmbiguous(t *testing.T) {
	n, l, f := world(t)
	one, two := copyBash(t, "one", ""), copyBash(t, "two", "")
	conn := connectAs(t, n, l, one, dial+two+" -c 'echo ready >&9; read x'; true")
	if _, err := conn.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if _, err := identify(f, conn); err == nil || !strings.Contains(err.Error(), "ambiguous shared socket ownership") {
		t.Errorf("error %v, want ambiguous ownership", err)
	}
}

func TestReplacedBinaryLosesItsIdentity(t *testing.T) {
	n, l, f := world(t)
	path := copyBash(t, "tool", "")
	if _, err := identify(f, connectAs(t, n, l, path, dial+"read x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copyBash(t, "other", "changed"), path); err != nil {
		t.Fatal(err)
	}
	_, err := identify(f, connectAs(t, n, l, path, dial+"read x"))
	if err == nil || !strings.Contains(err.Error(), "hash changed") {
		t.Errorf("error %v, want a changed hash", err)
	}
}

// An upgrade replaces programs that run. One that was seen with its name keeps it, as does one whose successor is
// equal; any other has lost it.
func TestReplacedWhileItRuns(t *testing.T) {
	n, l, f := world(t)
	for what, tt := range map[string]struct {
		seen      bool
		successor string // what follows the program in the file, "-": there is none
		named     bool
	}{
		"seen, replaced":        {true, "changed", true},
		"seen, removed":         {true, "-", true},
		"not seen, replaced":    {false, "changed", false},
		"not seen, removed":     {false, "-", false},
		"not seen, but equal":   {false, "", true},
		"seen, and again equal": {true, "", true},
	} {
		path := copyBash(t, "tool", "")
		conn := connectAs(t, n, l, path, dial+"read x")
		if tt.seen {
			if p, err := identify(f, conn); err != nil || p.Path != path {
				t.Fatalf("%s: %+v, %v", what, p, err)
			}
		}
		if tt.successor == "-" {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Rename(copyBash(t, "other", tt.successor), path); err != nil {
			t.Fatal(err)
		}
		want := path
		if !tt.named {
			want = removedFile + path
		}
		if p, err := identify(f, conn); err != nil || p.Path != want {
			t.Errorf("%s: %+v, %v; want %s", what, p, err, want)
		}
	}
}

// A name proves nothing of a file that it does not lead to.
func TestProgramsWithoutAName(t *testing.T) {
	n, l, f := world(t)
	path, linked := copyBash(t, "tool", ""), filepath.Join(t.TempDir(), "linked")
	if err := os.Link(path, linked); err != nil {
		t.Fatal(err)
	}
	conn := connectAs(t, n, l, path, dial+"read x")
	if err := os.Remove(path); err != nil { // which leaves the file its other name
		t.Fatal(err)
	}
	if p, err := identify(f, conn); err != nil || p.Path != removedFile+path {
		t.Errorf("%+v, %v", p, err)
	}

	// The name may end like the kernel's mark.
	marked := copyBash(t, "tool"+deletedMark, "")
	if p, err := identify(f, connectAs(t, n, l, marked, dial+"read x")); err != nil || p.Path != marked {
		t.Errorf("%+v, %v", p, err)
	}

	memory, err := unix.MemfdCreate("x/../bin/bash", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	bash, err := os.ReadFile("/bin/bash")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(memory, bash); err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(memory), "memory")
	defer file.Close()
	readable, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", memory))
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	conn = connectAs(t, n, l, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), readable.Fd()), dial+"read x")
	readable.Close()
	if p, err := identify(f, conn); err != nil || p.Path != anonymousFile+"x/../bin/bash" {
		t.Errorf("%+v, %v", p, err)
	}
}

// A process that can mount does not get the name of what it covers.
func TestCoveredProgram(t *testing.T) {
	n, l, f := world(t)
	tool, other, equal := copyBash(t, "tool", ""), copyBash(t, "other", "changed"), copyBash(t, "equal", "")
	f.Roots = func() []Root { return []Root{{PID: os.Getpid()}} }
	cover := func(file string) (Process, error) {
		script := fmt.Sprintf("mount --bind %s %s && exec %[2]s -c '%s'", file, tool, dial+"read x")
		return identify(f, connectAs(t, n, l, "/bin/bash", "exec unshare --user --map-root-user --mount /bin/bash -c \""+script+"\""))
	}
	for file, want := range map[string]string{tool: tool, equal: tool, other: otherFile + tool} {
		if p, err := cover(file); err != nil || p.Path != want {
			t.Errorf("%s: %+v, %v; want %s", file, p, err, want)
		}
	}
	// Where the first process of the container is in such a namespace itself, the image tells.
	f.Roots = func() []Root { return []Root{{Image: rootfs.At("/")}} }
	if p, err := cover(other); err != nil || p.Path != otherFile+tool {
		t.Errorf("%+v, %v", p, err)
	}
	// What is mounted without one is the low-level runtime's doing.
	conn := connectAs(t, n, l, "/bin/bash", fmt.Sprintf("exec unshare --mount /bin/bash -c \"mount --bind %s %s && exec %[2]s -c '%s'\"", other, tool, dial+"read x"))
	if p, err := identify(f, conn); err != nil || p.Path != tool {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestProcessesOfOtherNamespacesAreNoOwners(t *testing.T) {
	n, l, f := world(t)
	// This test process holds the socket, but lives in another namespace.
	c, err := n.Dial(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if p, err := identify(f, conn); err == nil {
		t.Errorf("identified %+v", p)
	}
}

func BenchmarkIdentify(b *testing.B) {
	n, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	if _, err := netns.Seal(n, nil); err != nil {
		b.Fatal(err)
	}
	l, err := n.Listen(netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	f, err := NewFinder(n)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/bin/bash", "-c", dial+"read x")
	stdin, _ := cmd.StdinPipe()
	if err := n.Do(cmd.Start); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	conn, err := l.AcceptTCP()
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := identify(f, conn); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("32 at once", func(b *testing.B) {
		b.SetParallelism(32 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := identify(f, conn); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// What holds nothing is not looked at again, for a while, and nobody else is passed over.
func TestAside(t *testing.T) {
	n, l, f := world(t)
	path := copyBash(t, "tool", "")
	first := connectAs(t, n, l, path, dial+"read x")
	for range 3 {
		if p, err := identify(f, first); err != nil || p.Path != path {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	a := &f.sockets.ignored
	if len(a.known) == 0 {
		t.Skip("this kernel has no threads of its own in /proc") // as in a PID namespace
	}
	for key := range a.known {
		if exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(key.pid), "exe")); err == nil {
			t.Errorf("process %d is ignored, and executes %s", key.pid, exe)
		}
	}
	// A process with the number of one that has ended, and another inode.
	for key := range a.known {
		if a.has(key.pid, key.inode+1) {
			t.Error("another process of the same number is passed over")
		}
	}
	if later := connectAs(t, n, l, path, dial+"read x"); later != nil {
		if p, err := identify(f, later); err != nil || p.Path != path {
			t.Errorf("a process that came later: %+v, %v", p, err)
		}
	}
	before := len(a.known)
	if a.begin(a.since.Add(ignoredFor)); len(a.known) != 0 || before == 0 {
		t.Errorf("%d are still ignored after their time", len(a.known))
	}
}

// Those who ask at once share a look at the processes, each with its own answer.
func TestIdentifyAtOnce(t *testing.T) {
	n, l, f := world(t)
	one, two := copyBash(t, "one", ""), copyBash(t, "two", "\x00")
	type asked struct {
		conn *net.TCPConn
		path string
	}
	var all []asked
	for range 4 {
		for _, path := range []string{one, two} {
			all = append(all, asked{connectAs(t, n, l, path, "exec 3<>/dev/tcp/127.0.0.1/8080; read"), path})
		}
	}
	var wg sync.WaitGroup
	for range 20 {
		for _, a := range all {
			wg.Go(func() {
				if p, err := identify(f, a.conn); err != nil || p.Path != a.path {
					t.Errorf("%+v, %v; want %s", p, err, a.path)
				}
			})
		}
	}
	wg.Wait()
}

func TestSocketInode(t *testing.T) {
	for link, want := range map[string]uint64{"socket:[42]": 42, "socket:[": 0, "socket:[]": 0, "socket:[x]": 0, "pipe:[42]": 0, "/tmp/socket:[42]": 0, "": 0} {
		if got, ok := socketInode([]byte(link)); got != want || ok != (want != 0) {
			t.Errorf("%q: %d, %v", link, got, ok)
		}
	}
}
