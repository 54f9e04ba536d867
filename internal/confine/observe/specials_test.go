// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSpecialFiles(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	tests := []struct {
		script string
		path   string
		want   Kind // Read is told of a write too, where its open is read of earlier
	}{
		{"cat /dev/bus/null", "/dev/bus/null", Read},
		{"true <> /dev/null", "/dev/null", Write},
		{"echo x > /dev/mounted; cat /dev/mounted", "/dev/mounted", Write},
		{"cat /dev/fifo & echo x > /dev/fifo; wait", "/dev/fifo", Write},
		{"(exec 3<> /dev/held; while [ ! -e /tmp/end ]; do sleep 0.01; done) &", "/dev/held", Write}, // neither written to nor closed
		{"true", "/dev/idle", 0},
	}
	for _, tt := range tests {
		c.run(tt.script)
	}
	w.await("/dev/held", Write)
	c.run("> /tmp/end")
	w.Stop()
	for _, tt := range tests {
		if got := w.kinds(tt.path); got&^Read != tt.want&^Read || tt.want == Read && got != Read || tt.want == 0 && got != 0 {
			t.Errorf("%s: %s is observed as %q, want %q", tt.script, tt.path, got, tt.want)
		}
		if got := w.existing(tt.path); tt.want != 0 && got != tt.path {
			t.Errorf("of %s, %q is said to have been there before", tt.path, got)
		}
	}
	for _, a := range w.accesses {
		if a.Binary != "/bin/busybox" {
			t.Errorf("by another program: %+v", a)
		}
	}
	if len(w.lost) > 0 {
		t.Errorf("lost: %q", w.lost)
	}
}

// await waits until an access was reported.
func (w *watched) await(path string, kinds Kind) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w.hold.Lock()
		got := w.kinds(path)
		w.hold.Unlock()
		if got&kinds == kinds {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is observed as %q, want %q", path, got, kinds)
		}
	}
}

// A device that an engine adds to a running container, and a FIFO in a directory
// that is shared with the host.
func TestLaterSpecialFiles(t *testing.T) {
	c := newContainer(t)
	w := watch(t, c)
	root := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "root")
	must(t, unix.Mknod(filepath.Join(root, "dev/later"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(filepath.Join(c.dir, "vol/fifo"), unix.S_IFIFO|0o666, 0))
	// It may be opened before it is known, but not for ever.
	c.run("(while [ ! -e /tmp/end ]; do true <> /dev/later; true <> /vol/fifo; sleep 0.01; done) &")
	w.await("/dev/later", Write)
	w.await("/vol/fifo", Write)
	c.run("> /tmp/end")
	w.Stop()
	if len(w.lost) > 0 {
		t.Errorf("lost: %q", w.lost)
	}
}

// The host's own use of a device, or of a FIFO that it shares, is not the
// container's.
func TestOthersOpenSpecialFiles(t *testing.T) {
	c := newContainer(t)
	must(t, unix.Mknod(filepath.Join(c.dir, "vol/fifo"), unix.S_IFIFO|0o666, 0))
	w := watch(t, c)
	c.run("true")
	for _, name := range []string{"device", "vol/fifo"} {
		must(t, exec.Command(busybox, "sh", "-c", `true <> "$0"`, filepath.Join(c.dir, name)).Run())
	}
	w.Stop()
	for _, a := range w.accesses {
		if a.Path != "/bin/busybox" && a.Path != "/dev/null" { // its standard output
			t.Errorf("observed %+v", a)
		}
	}
}

func TestWalkIsBounded(t *testing.T) {
	c := newContainer(t) // for the tmpfs
	dir := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "root/tmp")
	point, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_REPORT_DFID_NAME_TARGET, 0)
	must(t, err)
	var lost []string
	s := &specials{
		fd: fd, maxWalked: 300, known: map[handle]special{}, trees: []tree{{fd: point, point: "/tmp"}},
		lose: func(reason string) { lost = append(lost, reason) },
	}
	defer unix.Close(fd)
	defer s.close()

	want := func(n int) {
		t.Helper()
		s.remark()
		if len(s.known) != n || len(lost) > 0 {
			t.Fatalf("%d are known, want %d; lost: %q", len(s.known), n, lost)
		}
	}
	mkfifo := func(name string) { t.Helper(); must(t, unix.Mkfifo(filepath.Join(dir, name), 0o600)) }
	must(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(t, os.Symlink("a/b", filepath.Join(dir, "link")))
	mkfifo("top")
	mkfifo("a/b/deep")
	want(2)
	mkfifo("a/later")
	want(3)

	mkfifo("z")
	must(t, os.Mkdir(filepath.Join(dir, "many"), 0o755))
	for n := range s.maxWalked {
		must(t, unix.Mknod(filepath.Join(dir, "many", strconv.Itoa(n)), unix.S_IFREG|0o600, 0))
	}
	s.remark()
	if len(s.known) != 4 {
		t.Errorf("%d are known: what is near to the top comes first", len(s.known))
	}
	if len(lost) != 1 || !strings.Contains(lost[0], "files were looked at") {
		t.Errorf("lost: %q", lost)
	}
	for n := len(s.known); n < maxSpecials; n++ {
		s.known[handle(strconv.Itoa(n))] = special{}
	}
	mkfifo("y")
	if err := s.walk(s.trees[0]); err == nil || !strings.Contains(err.Error(), strconv.Itoa(maxSpecials)) {
		t.Errorf("more than %d are watched: %v", maxSpecials, err)
	}
}
