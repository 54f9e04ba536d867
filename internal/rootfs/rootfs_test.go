// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// image makes a root file system, and beside it what must not be reached.
func image(t *testing.T) (*Root, string) {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "root")
	for _, err := range []error{
		os.MkdirAll(dir+"/etc/dir", 0o755), os.WriteFile(dir+"/etc/file", []byte("12345"), 0o644),
		os.Symlink("/etc/file", dir+"/absolute"), os.Symlink("etc/../../../etc/file", dir+"/above"),
		os.Symlink("etc", dir+"/dirlink"), os.Symlink("loop", dir+"/loop"), os.Symlink("/nowhere/x", dir+"/dangling"),
		os.Symlink(top+"/secret", dir+"/away"), os.Symlink("../secret", dir+"/etc/away"), os.Symlink("/proc/self/root", dir+"/magic"),
		unix.Mkfifo(dir+"/fifo", 0o666), unix.Mknod(dir+"/device", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))),
		os.WriteFile(dir+"/endless", nil, 0o644), os.Truncate(dir+"/endless", 1<<40),
		os.WriteFile(top+"/secret", []byte("secret"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := At(dir).Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(root.Close)
	return root, dir
}

func TestResolve(t *testing.T) {
	root, dir := image(t)
	outside := strings.TrimSuffix(dir, "/root") + "/secret"
	for p, want := range map[string]string{
		"/etc/file": "/etc/file", "etc/file": "/etc/file", "/absolute": "/etc/file", "/above": "/etc/file",
		"/dirlink/file": "/etc/file", "/dirlink/../etc/./file/": "/etc/file", "../../..": "/", "": "/", "/": "/",
		"/dangling/y": "/nowhere/x/y", "/etc/away": "/secret", "/away": outside, "/etc/file/x": "/etc/file/x",
		"/new/../etc": "/etc", "/magic/etc": "/proc/self/root/etc",
	} {
		if got, err := root.Resolve(p); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", p, got, err, want)
		}
	}
	if got, err := root.Resolve("/loop/x"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %q, %v", got, err)
	}
}

func TestReadFile(t *testing.T) {
	root, _ := image(t)
	for p, want := range map[string]string{
		"/etc/file": "", "../../etc/file": "", "/absolute": "regular", "/dirlink/file": "symbolic links", "/away": "regular",
		"/etc/away": "regular", "/fifo": "regular", "/device": "regular", "/etc/dir": "regular", "/endless": "larger than",
		"/missing": "no such file", "/magic/etc/passwd": "symbolic links",
	} {
		data, _, err := root.ReadFile(p, 5)
		if want == "" && (err != nil || string(data) != "12345") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v, want %q", p, data, err, want)
		}
	}
	if _, _, err := root.ReadFile("/etc/file", 4); err == nil {
		t.Error("a file over the limit was read")
	}
}

// The source of a bind mount may be one file, or anything else.
// From any directory of a mount namespace, the top is the same.
func TestOpenTop(t *testing.T) {
	var want unix.Stat_t
	if err := unix.Stat("/", &want); err != nil {
		t.Fatal(err)
	}
	deep := t.TempDir() + strings.Repeat("/d", 20)
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"/", "/proc/self", deep, "/proc/self/root"} {
		r, err := At(from).OpenTop()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Lstat("/"); err != nil || got.ID != (ID{want.Dev, want.Ino}) {
			t.Errorf("%s: %+v, %v", from, got, err)
		}
		r.Close()
	}
	deeper := deep + strings.Repeat("/d", maxDepth)
	if err := os.MkdirAll(deeper, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{deeper, deep + "/none"} {
		if _, err := At(from).OpenTop(); err == nil {
			t.Errorf("%s is opened", from)
		}
	}
}

func TestRootThatIsNoDirectory(t *testing.T) {
	_, dir := image(t)
	for name, ok := range map[string]bool{"etc/file": true, "fifo": false, "device": false} {
		root, err := At(filepath.Join(dir, name)).Open()
		if err != nil {
			t.Fatal(err)
		}
		if data, _, err := root.ReadFile("/", 10); (err == nil) != ok {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if _, err := root.Lstat("/x"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("below %s: %v", name, err)
		}
		root.Close()
	}
}

func TestWriteFile(t *testing.T) {
	root, dir := image(t)
	for p, ok := range map[string]bool{"/etc/file": true, "/etc/new": true, "/away": false, "/dirlink/new": false, "/fifo": false, "/missing/new": false} {
		if err := root.WriteFile(p, []byte("new"), 0o644); (err == nil) != ok {
			t.Errorf("%s: %v", p, err)
		}
		if !ok {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(dir, p)); string(data) != "new" {
			t.Errorf("%s: %q, %v", p, data, err)
		}
	}
}

func TestMakeDirs(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // an engine's
	root, dir := image(t)
	dirs, err := root.MakeDirs("/etc/a/b")
	if err != nil || len(dirs) != 3 || dirs[0].Made || !dirs[1].Made || !dirs[2].Made || dirs[2].Path != "/etc/a/b" {
		t.Fatalf("%+v, %v", dirs, err)
	}
	if info, err := os.Stat(dir + "/etc/a"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("not every user may enter: %v, %v", info, err)
	}
	if err := root.Remove(dirs[1]); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("the outer one first: %v", err)
	}
	if err := errors.Join(root.Remove(dirs[2]), root.Remove(dirs[1])); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/etc/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("something is left")
	}
	for _, p := range []string{"/dirlink/a", "/absolute", "/fifo/a", "/etc/file", "/magic/a"} {
		if _, err := root.MakeDirs(p); err == nil {
			t.Errorf("%s was made", p)
		}
	}
	if dirs, err := root.MakeDirs("/"); err != nil || dirs != nil {
		t.Errorf("the root itself: %v, %v", dirs, err)
	}
}

// Somebody in the container exchanges a directory and a link for each other all
// the time. Nothing of the host's is read, made or removed.
func TestExchangedMeanwhile(t *testing.T) {
	root, dir := image(t)
	outside := filepath.Join(filepath.Dir(dir), "outside")
	for _, err := range []error{
		os.MkdirAll(outside+"/in", 0o755), os.WriteFile(outside+"/file", []byte("secret"), 0o644),
		os.MkdirAll(dir+"/flip/in", 0o755), os.WriteFile(dir+"/flip/file", []byte("inside"), 0o644),
		os.Symlink(outside, dir+"/other"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/flip", unix.AT_FDCWD, dir+"/other", unix.RENAME_EXCHANGE)
			}
		}
	}()
	defer func() { close(done); <-stopped }()
	read, refused := 0, 0
	for i := 0; i < 20_000 && (i < 500 || read == 0 || refused == 0); i++ {
		data, _, err := root.ReadFile("/flip/file", 100)
		switch {
		case err != nil:
			refused++
		case string(data) != "inside":
			t.Fatalf("read %q", data)
		default:
			read++
		}
		dirs, _ := root.MakeDirs("/flip/new/x")
		for j := len(dirs) - 1; j >= 0; j-- {
			if dirs[j].Made {
				_ = root.Remove(dirs[j])
			}
		}
		_ = root.Remove(Dir{Path: "/flip/in", ID: ID{Dev: 1, Ino: 1}})
		if left, err := os.ReadDir(outside); err != nil || len(left) != 2 {
			t.Fatalf("the host's directory has %v, %v", left, err)
		}
	}
	if read == 0 || refused == 0 {
		t.Errorf("%d were read, %d refused: nothing was exchanged", read, refused)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("/a/../b//c/", "/x/../../y")
	f.Add("l/l/l", "l")
	f.Fuzz(func(t *testing.T, p, target string) {
		got, err := Resolve(p, func(at string) (string, error) {
			if filepath.Base(at) == "l" {
				return target, nil
			}
			return "", nil
		})
		if err == nil && (!strings.HasPrefix(got, "/") || filepath.Clean(got) != got) {
			t.Errorf("%q", got)
		}
	})
}
