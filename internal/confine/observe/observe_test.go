// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// watched collects what is observed of a container.
type watched struct {
	*Observer
	t        *testing.T
	accesses []Access // complete once stopped
	lost     []string
	hold     sync.Mutex // held while the observer is kept from going on
}

func watch(t *testing.T, c *container) *watched {
	t.Helper()
	w := &watched{t: t}
	var err error
	w.Observer, err = Watch(c.cmd.Process.Pid, Options{
		Report: func(a Access) {
			w.hold.Lock()
			defer w.hold.Unlock()
			w.accesses = append(w.accesses, a)
		},
		Lost:   func(reason string) { w.lost = append(w.lost, reason) },
		Hidden: "/dev/.hidden",
	})
	must(t, err)
	t.Cleanup(w.Stop)
	return w
}

// busy keeps the observer from going on meanwhile.
func (w *watched) busy(f func()) {
	w.hold.Lock()
	defer w.hold.Unlock()
	f()
}

// soFar is kinds while the observer is at work.
func (w *watched) soFar(path string) Kind {
	w.hold.Lock()
	defer w.hold.Unlock()
	return w.kinds(path)
}

func (w *watched) kinds(path string) (kinds Kind) {
	for _, a := range w.accesses {
		if a.Path == path {
			kinds |= a.Kinds
		}
	}
	return kinds
}

func (w *watched) existing(path string) string {
	for _, a := range slices.Backward(w.accesses) {
		if a.Path == path {
			return a.Existing
		}
	}
	return ""
}

func TestEveryKindOfAccess(t *testing.T) {
	c := newContainer(t)
	tests := []struct {
		script   string
		path     string
		kinds    Kind
		existing string
	}{
		{"cat /data/old", "/data/old", Read | Write, ""},
		{"cat /vol/there", "/vol/there", Read, ""},
		{"ls /data/sub", "/data/sub", ReadDir | Create | Delete, ""},
		{"echo a >> /data/old", "/data/old", Read | Write, ""},
		{"/bin/script", "/bin/script", Read | Execute, ""},
		{"true", "/bin/busybox", Read | Execute, ""},
		{"mkdir /data/new", "/data/new", Create | Delete | Rename, "/data"},
		{"echo b > /data/new/file", "/data/new/file", Create | Write, "/data"},
		{"mkdir -p /data/new/a/b/c", "/data/new/a/b/c", Create, "/data"},
		{"ln -s x /data/link", "/data/link", Create, "/data"},
		{"mkfifo /data/fifo", "/data/fifo", Create, "/data"},
		{"mv /data/renamed /data/moved", "/data/renamed", Rename | Delete, ""},
		{"true", "/data/moved", Rename | Create, "/data"},
		{"rm /data/sub/deep", "/data/sub/deep", Delete, ""},
		{"rm -r /data/sub", "/data/sub", ReadDir | Create | Delete, ""},
		{"mkdir /data/sub", "/data/sub", ReadDir | Create | Delete, "/data/sub"},
		{"mv /data/new /data/newer; echo c > /data/newer/late", "/data/newer/late", Create | Write, "/data"},
		{"echo d > /tmp/t; mkdir /tmp/dir; mv /tmp/t /tmp/dir/t2; rm /tmp/dir/t2", "/tmp/t", Create | Rename | Delete, ""},
		{"true", "/tmp/dir/t2", Rename | Create | Delete, ""},
		{"echo e > /vol/inner/v; rm /vol/inner/v", "/vol/inner/v", Create | Write | Delete, "/vol/inner"},
		{"mkdir /vol/made; touch /vol/made/f", "/vol/made/f", Create | Write, "/vol"},
		{"mkdir -p /vol/gone/x/y; touch /vol/gone/x/y/z; rm -r /vol/gone", "/vol/gone/x/y/z", Create | Write | Delete, "/vol"},
		{"cat /proc/self/comm; echo x > /proc/self/comm", "", 0, ""},
		{"echo f > '/tmp/a\nb'", "/tmp/a\nb", Create | Write, "/tmp"},
		{"echo f > /tmp/$(printf '\\377')", "/tmp/\xff", Create | Write, "/tmp"},
		{"echo f > '/tmp/x (deleted)'", "/tmp/x (deleted)", Create | Write, "/tmp"},
	}
	w := watch(t, c)
	for _, tt := range tests {
		c.run(tt.script)
	}
	w.Stop()
	for _, tt := range tests {
		if tt.path == "" {
			continue
		}
		// A file that is opened and at once renamed may have been opened by either name.
		either := Read
		if tt.kinds&Rename != 0 {
			either |= Write
		}
		if got := w.kinds(tt.path); got&^either != tt.kinds&^either || tt.kinds&Read != 0 && got&Read == 0 {
			t.Errorf("%s: %q is observed as %q, want %q", tt.script, tt.path, got, tt.kinds)
		}
		if want := tt.existing; want != "" && w.existing(tt.path) != want {
			t.Errorf("%s: of %q, %q is said to have been there before, want %q", tt.script, tt.path, w.existing(tt.path), want)
		}
	}
	if (w.kinds("/tmp/t")|w.kinds("/tmp/dir/t2"))&Write == 0 {
		t.Error("a write to a file that was renamed is not observed")
	}
	if len(w.lost) > 0 {
		t.Errorf("lost: %q", w.lost)
	}
	proc := false
	for _, a := range w.accesses {
		proc = proc || strings.HasPrefix(a.Path, "/proc/") && strings.HasSuffix(a.Path, "/comm") && a.Kinds&Write != 0
		if strings.Contains(a.Path, c.dir) || strings.HasPrefix(a.Path, "/work") || strings.Contains(a.Path, "#") {
			t.Errorf("a path that is not the container's: %+v", a)
		}
		if a.Kinds&(Create|Delete|Write) != 0 && a.Binary != "/bin/busybox" && a.Binary != "" {
			t.Errorf("%q did %q", a.Binary, a.Path)
		}
	}
	if !proc {
		t.Error("a write to /proc is not observed")
	}
	if t.Failed() {
		for _, a := range w.accesses {
			t.Logf("%-14s %q (existing %q) by %q", a.Kinds, a.Path, a.Existing, a.Binary)
		}
	}
}

func TestOthersAreNotObserved(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	// What others do with the same file system, and even through the container's root.
	for _, name := range []string{"vol/from-host", "beside/from-host", "upper/../beside/x"} {
		must(t, os.WriteFile(filepath.Join(c.dir, name), nil, 0o644))
	}
	root := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "root")
	if _, err := os.ReadFile(filepath.Join(root, "data/sub/deep")); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(root, "tmp/ours"), nil, 0o644))
	c.run("cat /data/nothing 2>/dev/null; chmod 600 /data/chmodded; true")
	w.Stop()
	for _, a := range w.accesses {
		if a.Path != "/bin/busybox" && a.Path != "/dev/null" {
			t.Errorf("observed %+v", a)
		}
	}
	if w.kinds("/bin/busybox")&Execute == 0 {
		t.Error("what the container did is not observed")
	}
}

// What is mounted into a running container, by its engine, is watched too.
func TestLaterMounts(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	must(t, os.MkdirAll(filepath.Join(c.dir, "later"), 0o755))
	must(t, os.WriteFile(filepath.Join(c.dir, "later/file"), nil, 0o644))
	c.mountInto(filepath.Join(c.dir, "later"), "/data")
	// The kernel tells of the mount a moment after it is there.
	for late := time.Now().Add(time.Minute); w.soFar("/data/file") == 0 && time.Now().Before(late); {
		c.run("cat /data/file")
		time.Sleep(10 * time.Millisecond)
	}
	c.run("echo x > /data/new")
	w.Stop()
	if got := w.kinds("/data/file"); got != Read {
		t.Errorf("a read is observed as %q", got)
	}
	if got := w.kinds("/data/new"); got&(Create|Write) != Create|Write {
		t.Errorf("a new file is observed as %q", got)
	}
}

// What a process did to its own files in /proc is told of when it has ended too,
// and keeps nothing else from being told.
func TestFilesOfEndedProcesses(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	w.busy(func() {
		for range 8 {
			c.run("cat /proc/self/maps /proc/self/mountinfo /proc/self/comm")
		}
		c.run("cat /data/old")
	})
	w.Stop()
	if len(w.lost) > 0 {
		t.Errorf("lost: %q", w.lost)
	}
	if w.kinds("/data/old")&Read == 0 {
		t.Error("what came behind them is not observed")
	}
}

// More than the kernel's queue holds is reported as lost, not passed over.
func TestOverflow(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	w.busy(func() {
		c.run("seq 20000 | while read n; do echo > /tmp/$n; done")
	})
	w.Stop()
	if !slices.ContainsFunc(w.lost, func(reason string) bool { return strings.Contains(reason, "faster than they could be read") }) {
		t.Errorf("lost: %q", w.lost)
	}
}

func TestWatchRefuses(t *testing.T) {
	if _, err := Watch(1<<22+1, Options{}); err == nil {
		t.Error("a process that is not there is watched")
	}
}
