// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary the first process of a container, with a root
// file system of that directory's.
const (
	childEnv = "OBSERVE_TEST_CONTAINER"
	lowerEnv = "OBSERVE_TEST_LOWER"
)

const busybox = "/bin/busybox"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := runContainer(dir); err != nil {
			fmt.Fprintln(os.Stderr, "container:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// container has an overlay for its root, a tmpfs, a directory of the host's and
// /proc, in namespaces of its own.
type container struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func newContainer(t testing.TB) *container {
	t.Helper()
	c := &container{t: t, dir: t.TempDir()}
	c.makeImage()
	c.start(filepath.Join(c.dir, "lower"))
	return c
}

// newHostContainer has the host's own files for its image, and the programs on it.
func newHostContainer(t testing.TB) *container {
	t.Helper()
	c := &container{t: t, dir: t.TempDir()}
	for _, d := range []string{"upper/vol", "work", "root", "vol"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, d), 0o755))
	}
	c.start("/")
	return c
}

func (c *container) makeImage() {
	t := c.t
	t.Helper()
	for _, d := range []string{"lower/bin", "lower/proc", "lower/tmp", "lower/vol", "lower/data/sub", "lower/dev", "upper", "work", "root", "vol/inner", "beside"} {
		must(t, os.MkdirAll(filepath.Join(c.dir, d), 0o755))
	}
	for _, f := range []string{"lower/data/old", "lower/data/sub/deep", "lower/data/renamed", "lower/data/chmodded", "vol/there", "beside/secret"} {
		must(t, os.WriteFile(filepath.Join(c.dir, f), []byte("x\n"), 0o644))
	}
	program, err := os.ReadFile(busybox)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.dir, "lower/bin/busybox"), program, 0o755))
	for _, applet := range []string{"sh", "cat", "rm", "mv", "mkdir", "ln", "touch", "chmod", "ls", "rmdir", "true", "cp", "truncate", "mkfifo", "seq", "find", "sleep"} {
		must(t, os.Symlink("busybox", filepath.Join(c.dir, "lower/bin", applet)))
	}
	must(t, os.WriteFile(filepath.Join(c.dir, "lower/bin/script"), []byte("#!/bin/sh\ncat /data/old\n"), 0o755))
}

func (c *container) start(lower string) {
	t := c.t
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	c.cmd = exec.Command("/proc/self/exe")
	c.cmd.Env = []string{childEnv + "=" + c.dir, lowerEnv + "=" + lower}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	c.cmd.Stderr = os.Stderr
	var err error
	c.in, err = c.cmd.StdinPipe()
	must(t, err)
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	c.out = bufio.NewReader(out)
	must(t, c.cmd.Start())
	t.Cleanup(c.end)
	c.await()
}

func (c *container) end() {
	c.in.Close()
	_ = c.cmd.Wait()
}

// mountInto binds a directory of the host's to one of the container's, as an
// engine can: from outside.
func (c *container) mountInto(source, target string) {
	c.t.Helper()
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(c.t, err)
	defer unix.Close(tree)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and leave it to its end: it is in another namespace
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", c.cmd.Process.Pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return err
			}
			return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
		}()
	}()
	must(c.t, <-done)
}

// run runs a shell's commands in the container.
func (c *container) run(script string) (cpu time.Duration) {
	c.t.Helper()
	_, err := fmt.Fprintf(c.in, "%q\n", script)
	must(c.t, err)
	return c.await()
}

// await waits for the container's answer, which is the processor time that the
// commands took.
func (c *container) await() (cpu time.Duration) {
	c.t.Helper()
	line, err := c.out.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "ok %d", &cpu)
	}
	if err != nil {
		c.t.Fatalf("the container says %q: %v", line, err)
	}
	return cpu
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeDevices makes devices and a FIFO on a container's /dev, and one in the
// container's directory that is mounted there.
func makeDevices(dir, dev string) error {
	if err := os.Mkdir(dev+"/bus", 0o755); err != nil {
		return err
	}
	null := int(unix.Mkdev(1, 3))
	for _, d := range []struct {
		name string
		mode uint32
	}{
		{dev + "/null", unix.S_IFCHR}, {dev + "/bus/null", unix.S_IFCHR}, {dev + "/idle", unix.S_IFCHR}, {dev + "/held", unix.S_IFCHR}, {dev + "/fifo", unix.S_IFIFO},
		{dir + "/device", unix.S_IFCHR}, {dev + "/mounted", unix.S_IFREG},
	} {
		if err := unix.Mknod(d.name, d.mode|0o666, null); err != nil {
			return fmt.Errorf("mknod %s: %w", d.name, err)
		}
	}
	return unix.Mount(dir+"/device", dev+"/mounted", "", unix.MS_BIND, "")
}

// runContainer sets up the container and executes what comes on standard input.
func runContainer(dir string) error {
	root := filepath.Join(dir, "root")
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", os.Getenv(lowerEnv), dir, dir)
	for _, m := range []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"none", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"overlay", root, "overlay", 0, layers},
		{"proc", root + "/proc", "proc", 0, ""},
		{"tmpfs", root + "/tmp", "tmpfs", 0, ""},
		{"tmpfs", root + "/dev", "tmpfs", 0, ""},
		{dir + "/vol", root + "/vol", "", unix.MS_BIND, ""},
	} {
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := makeDevices(dir, root+"/dev"); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("umount: %w", err)
	}
	fmt.Println("ok 0")
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil
		}
		var script string
		if _, err := fmt.Sscanf(line, "%q", &script); err != nil {
			return err
		}
		cmd := exec.Command("/bin/busybox", "sh", "-c", script)
		cmd.Env = []string{"PATH=/bin:/usr/bin"}
		cmd.Stderr = os.Stderr
		cmd.Stdin = strings.NewReader("")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%q: %w", script, err)
		}
		fmt.Printf("ok %d\n", cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
}
