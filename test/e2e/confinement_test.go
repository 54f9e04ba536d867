// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/node"
)

// droppedCapabilities are those that no workload keeps, by their numbers
// (linux/capability.h).
var droppedCapabilities = map[string]uint{
	"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_MODULE": unix.CAP_SYS_MODULE,
	"SYS_RAWIO": unix.CAP_SYS_RAWIO, "SYS_PTRACE": unix.CAP_SYS_PTRACE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"SYS_BOOT": unix.CAP_SYS_BOOT, "SYS_TIME": unix.CAP_SYS_TIME, "MAC_OVERRIDE": unix.CAP_MAC_OVERRIDE,
	"MAC_ADMIN": unix.CAP_MAC_ADMIN, "PERFMON": unix.CAP_PERFMON, "BPF": unix.CAP_BPF,
	"CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE, "SYS_RESOURCE": unix.CAP_SYS_RESOURCE,
}

// confined checks what /proc/self/status says of a process in a sandbox.
func confined(t *testing.T, what string, r node.Result) {
	t.Helper()
	if r.Fields["Seccomp"] != "2" || r.Fields["NoNewPrivs"] != "1" {
		t.Errorf("%s: Seccomp %s, NoNewPrivs %s", what, r.Fields["Seccomp"], r.Fields["NoNewPrivs"])
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		bits, err := strconv.ParseUint(r.Fields[set], 16, 64)
		if err != nil {
			t.Fatalf("%s: %s: %v", what, set, err)
		}
		for name, n := range droppedCapabilities {
			// Files with these must be executable, if only without them.
			if set == "CapBnd" && (name == "NET_RAW" || name == "NET_ADMIN") {
				continue
			}
			if bits&(1<<n) != 0 {
				t.Errorf("%s: %s has CAP_%s", what, set, name)
			}
		}
	}
}

// modes are the edits that make a container's mode.
var modes = map[string][]node.Edit{"enforcing": nil, "permissive": {node.Permissive}}

func TestSeccompAndCapabilities(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	noDefault := node.New(t, map[string]any{"seccomp": map[string]any{"default_profile": false}})
	for mode, edits := range modes {
		for name, more := range map[string]node.Edit{"plain": func(*specs.Spec) {}, "everything": node.Everything} {
			for profile, w := range map[string]*node.World{"default profile": w, "no default profile": noDefault} {
				what := mode + ", " + name + ", " + profile
				c := w.Container(append(edits, more, node.Args(node.ClientPath, "status"))...)
				o := c.Run()
				r := o.Results(c)[0]
				confined(t, what, r)
				filters, _ := strconv.Atoi(r.Fields["Seccomp_filters"])
				if want := map[string]int{"default profile": 2, "no default profile": 1}[profile]; filters < want {
					t.Errorf("%s: %d filters, want at least %d", what, filters, want)
				}
				if bits, _ := strconv.ParseUint(r.Fields["CapEff"], 16, 64); bits&(1<<unix.CAP_CHOWN) == 0 {
					t.Errorf("%s: a harmless capability is gone: %s", what, r.Fields["CapEff"])
				}
			}
		}
	}
}

func TestRefusedSystemCalls(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Permissive, node.Everything).Start()
	for _, call := range []struct {
		eperm string // what busybox says of it
		argv  []string
	}{
		{"are you root?", []string{"/bin/mount", "-t", "tmpfs", "tmpfs", "/data"}},
		{"Operation not permitted", []string{"/bin/unshare", "-U", "/bin/true"}},
		{"Operation not permitted", []string{"/bin/nsenter", "-t", "1", "-m", "/bin/true"}},
	} {
		o := c.Exec(call.argv...)
		if o.Status == 0 || !strings.Contains(o.Stderr, call.eperm) {
			t.Errorf("%s: %s", call.argv[0], o)
		}
	}
}

func TestOnlyLoopback(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	prepared := node.New(t).Apart()
	for mode, edits := range modes {
		for name, network := range map[string]node.Edit{
			"new namespace": func(*specs.Spec) {},
			"path":          node.NetnsPath(prepared.Net),
			"host's": func(s *specs.Spec) {
				s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
					return n.Type == specs.NetworkNamespace
				})
			},
		} {
			w := w
			if name == "path" {
				w = prepared
			}
			c := w.Container(append(edits, network, node.Args(node.ClientPath, "links"))...)
			if r := c.Run().Results(c)[0]; !slices.Equal(r.Names, []string{"lo"}) {
				t.Errorf("%s, %s: devices %q", mode, name, r.Names)
			}
			c.AwaitEnd() // of the path's namespace, which a second container would join
		}
	}
}

const someFiles = `version: 1
filesystem_policy:
  read_only: [/srv]
  read_write: [/data]
`

// refusedAccess reports whether an access failed with EACCES, which is Landlock's.
func refusedAccess(r node.Result) bool {
	return !r.OK && strings.Contains(r.Error, "permission denied")
}

func TestFilesystem(t *testing.T) {
	t.Parallel()
	p := newPair(t, someFiles)
	writes := func(c *node.Container, paths []string) []node.Result {
		t.Helper()
		var commands [][]string
		for _, path := range paths {
			commands = append(commands, []string{"write", path, "x"})
		}
		return c.Sequence(commands...)
	}
	for _, r := range writes(p.enforcing, []string{"/data/a", "/tmp/a", "/dev/shm/a", "/dev/null"}) {
		if !r.OK {
			t.Errorf("enforcing, %s is writable by policy or baseline: %s", r.Target, r.Error)
		}
	}
	outside := []string{"/outside/a", "/srv/a", "/etc/passwd-", "/usr/bin/a", "/a"}
	refusals, successes := writes(p.enforcing, outside), writes(p.permissive, outside)
	for i, path := range outside {
		if !refusedAccess(refusals[i]) {
			t.Errorf("enforcing, write %s: %+v", path, refusals[i])
		}
		if _, err := os.Lstat(filepath.Join(p.enforcing.Rootfs(), path)); !os.IsNotExist(err) {
			t.Errorf("enforcing, %s was written: %v", path, err)
		}
		if !successes[i].OK {
			t.Errorf("permissive, write %s: %s", path, successes[i].Error)
		}
		if _, err := os.Lstat(filepath.Join(p.permissive.Rootfs(), path)); err != nil {
			t.Errorf("permissive, %s was not written: %v", path, err)
		}
	}
	reads := p.enforcing.Sequence([]string{"read", "/etc/passwd"}, []string{"list", "/outside"})
	if !reads[0].OK {
		t.Errorf("enforcing, read of the baseline: %s", reads[0].Error)
	}
	if !refusedAccess(reads[1]) {
		t.Errorf("enforcing, list /outside: %+v", reads[1])
	}
}

func TestFirstProcessIsConfinedLikeExec(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("files", someFiles)
	c := w.Container(node.Policy("files"), node.Args(node.SequenceOf([]string{"write", "/data/a"}, []string{"write", "/outside/a"})...))
	list := c.Run().Results(c)
	if !list[0].OK || !refusedAccess(list[1]) {
		t.Errorf("the first process's writes: %+v", list)
	}
}

// trustVariables point clients at the sandbox's CA.
var trustVariables = []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
	"NODE_EXTRA_CA_CERTS", "DENO_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "NIX_SSL_CERT_FILE"}

// execWays are the ways by which engines execute a program in a container. Each
// returns what the program printed.
var execWays = map[string]func(c *node.Container, argv ...string) node.Outcome{
	"positional": (*node.Container).Exec,
	"process file": func(c *node.Container, argv ...string) node.Outcome {
		return c.World.OCI("exec", "--process", c.ProcessFile(false, argv...), c.ID)
	},
	"process file, inline flag": func(c *node.Container, argv ...string) node.Outcome {
		return c.World.OCI("exec", "-p="+c.ProcessFile(false, argv...), c.ID)
	},
	"process file with a terminal": func(c *node.Container, argv ...string) node.Outcome {
		tty := newConsole(c.World)
		o := c.World.OCI("exec", "--process", c.ProcessFile(true, argv...), "--console-socket", tty.path, "--detach", c.ID)
		if o.Status != 0 {
			return o
		}
		return node.Outcome{Stdout: tty.read()}
	},
	"capabilities asked for": func(c *node.Container, argv ...string) node.Outcome {
		return c.World.OCI(append([]string{"exec", "--cap", "CAP_SYS_ADMIN", "--cap=CAP_NET_ADMIN", "--cap", "CAP_CHOWN", c.ID}, argv...)...)
	},
}

func TestExecIsConfined(t *testing.T) {
	t.Parallel()
	p := newPair(t, someFiles)
	for name, exec := range execWays {
		for _, c := range []*node.Container{p.enforcing, p.permissive} {
			what := name + ", " + c.Info().Mode
			list := exec(c, node.SequenceOf([]string{"status"}, append([]string{"env"}, trustVariables...),
				[]string{"write", "/outside/exec", "x"})...).Results(c)
			confined(t, what, list[0])
			for _, variable := range trustVariables {
				if value := list[1].Fields[variable]; !strings.Contains(value, "/etc/openshell-tls/") {
					t.Errorf("%s: %s is %q", what, variable, value)
				}
			}
			if r := list[2]; c == p.enforcing && !refusedAccess(r) || c == p.permissive && !r.OK {
				t.Errorf("%s: write outside: %+v", what, r)
			}
		}
	}
}

func TestTrustVariableOfTheImageIsKept(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Args(node.ClientPath, "env", "SSL_CERT_FILE", "CURL_CA_BUNDLE"), func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, "SSL_CERT_FILE=/data/own.pem")
	})
	r := c.Run().Results(c)[0]
	if r.Fields["SSL_CERT_FILE"] != "/data/own.pem" || r.Fields["CURL_CA_BUNDLE"] == "" {
		t.Errorf("variables %+v", r.Fields)
	}
}

// console is the socket on which the low-level runtime hands over a terminal
// (runc's docs/terminals.md).
type console struct {
	w    *node.World
	path string
	l    *net.UnixListener
}

func newConsole(w *node.World) *console {
	w.T.Helper()
	// Not in the test's directory, whose path may be too long for sun_path.
	dir, err := os.MkdirTemp("", "c")
	node.Must(w.T, err)
	w.T.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	node.Must(w.T, err)
	w.T.Cleanup(func() { l.Close() })
	return &console{w: w, path: path, l: l}
}

// terminal takes over the terminal.
func (c *console) terminal() *os.File {
	c.w.T.Helper()
	conn, err := c.l.AcceptUnix()
	node.Must(c.w.T, err)
	defer conn.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 4096), oob)
	node.Must(c.w.T, err)
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	node.Must(c.w.T, err)
	fds, err := unix.ParseUnixRights(&messages[0])
	node.Must(c.w.T, err)
	tty := os.NewFile(uintptr(fds[0]), "tty")
	c.w.T.Cleanup(func() { tty.Close() })
	return tty
}

// read takes over the terminal and reads all that is written to it.
func (c *console) read() string {
	tty := c.terminal()
	var text strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := tty.Read(buf)
		text.Write(buf[:n])
		if err != nil { // EIO, when the last process has closed its side
			return strings.ReplaceAll(text.String(), "\r\n", "\n")
		}
	}
}
