// SPDX-License-Identifier: Apache-2.0

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// other is somebody who is not root.
const other = 65534

func TestMain(m *testing.M) {
	unix.Umask(0o022)
	os.Exit(m.Run())
}

// tree makes /etc/f below a directory of the test's, and a link to it.
func tree(t *testing.T) (root, file string) {
	t.Helper()
	root = t.TempDir()
	file = filepath.Join(root, "etc", "sub", "f")
	for _, dir := range []string{filepath.Dir(file), filepath.Join(root, "links"), filepath.Join(root, "sticky")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	must(t, os.Chmod(filepath.Join(root, "sticky"), 0o777|os.ModeSticky))
	must(t, os.WriteFile(file, []byte("content"), 0o600))
	must(t, os.Symlink("../etc/sub/f", filepath.Join(root, "links", "f")))
	must(t, os.Symlink(filepath.Join(root, "links", "f"), filepath.Join(root, "links", "again")))
	must(t, os.Symlink(filepath.Join(root, "etc"), filepath.Join(root, "links", "etc")))
	must(t, os.Symlink(file, filepath.Join(root, "sticky", "f")))
	return root, file
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("gives files to others: needs root")
	}
}

func TestRead(t *testing.T) {
	needRoot(t)
	for _, tt := range []struct {
		name  string
		spoil func(root string) error // nil: it is accepted
		path  string                  // below the root; by default etc/sub/f
		names string                  // what the error has, below the root, and the fix
		fix   string
	}{
		{name: "root's"},
		{name: "through links", path: "links/again"},
		{name: "through a link to a directory, and out of it", path: "links/etc/../etc/sub/f"},
		{name: "through a link in a sticky directory", path: "sticky/f"},
		{name: "the group is root's", spoil: func(root string) error { return os.Chmod(root+"/etc/sub/f", 0o660) }, names: "-"},
		{name: "a sticky directory above", spoil: func(root string) error { return os.Chmod(root+"/etc", 0o777|os.ModeSticky) }, names: "-"},
		{name: "everybody's", spoil: func(root string) error { return os.Chmod(root+"/etc/sub/f", 0o666) }, names: "etc/sub/f", fix: "chmod go-w"},
		{name: "a group's", spoil: func(root string) error {
			return errors.Join(os.Chown(root+"/etc/sub/f", 0, other), os.Chmod(root+"/etc/sub/f", 0o660))
		}, names: "etc/sub/f", fix: "chmod go-w"},
		{name: "owned by another", spoil: func(root string) error { return os.Chown(root+"/etc/sub/f", other, 0) }, names: "etc/sub/f", fix: "chown -h root"},
		{name: "in everybody's directory", spoil: func(root string) error { return os.Chmod(root+"/etc/sub", 0o777) }, names: "etc/sub", fix: "chmod go-w"},
		{name: "two below everybody's directory", spoil: func(root string) error { return os.Chmod(root+"/etc", 0o757) }, names: "etc", fix: "chmod go-w"},
		{name: "below another's directory", spoil: func(root string) error { return os.Chown(root+"/etc", other, 0) }, names: "etc", fix: "chown -h root"},
		{name: "below another's sticky directory", spoil: func(root string) error {
			return errors.Join(os.Chown(root+"/etc", other, 0), os.Chmod(root+"/etc", 0o777|os.ModeSticky))
		}, names: "etc", fix: "chown -h root"},
		{name: "a link in everybody's directory", path: "links/f", spoil: func(root string) error { return os.Chmod(root+"/links", 0o777) }, names: "links", fix: "chmod go-w"},
		{name: "a link into everybody's directory", path: "links/again", spoil: func(root string) error { return os.Chmod(root+"/etc/sub", 0o777) }, names: "etc/sub", fix: "chmod go-w"},
		{name: "another's link in a sticky directory", path: "sticky/f", spoil: func(root string) error { return os.Lchown(root+"/sticky/f", other, 0) }, names: "sticky/f", fix: "chown -h root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root, _ := tree(t)
			if tt.spoil != nil {
				must(t, tt.spoil(root))
			}
			if tt.path == "" {
				tt.path = "etc/sub/f"
			}
			data, err := Read(root+"/"+tt.path, 100)
			if tt.fix == "" {
				if err != nil || string(data) != "content" {
					t.Errorf("%q, %v", data, err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), filepath.Join(root, tt.names)+" ") ||
				!strings.Contains(err.Error(), tt.fix+" ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("read %q, %v", data, err)
			}
		})
	}
}

// The bits of the group stand for all entries of an access control list.
func TestReadACL(t *testing.T) {
	needRoot(t)
	setfacl, err := exec.LookPath("setfacl")
	_, file := tree(t)
	if err == nil {
		out, err := exec.Command(setfacl, "-m", "u:nobody:rw", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	} else {
		// acl(5) in the kernel's form: version 2, then (tag, permissions, id).
		entry := func(tag, perm byte, id uint32) []byte {
			return []byte{tag, 0, perm, 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}
		}
		acl := []byte{2, 0, 0, 0}
		for _, e := range [][]byte{entry(1, 6, ^uint32(0)), entry(2, 6, other), entry(4, 0, ^uint32(0)), entry(16, 6, ^uint32(0)), entry(32, 0, ^uint32(0))} {
			acl = append(acl, e...)
		}
		if err := unix.Setxattr(file, "system.posix_acl_access", acl, 0); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("this file system has no access control lists")
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(file, 100); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file that nobody may write: %v", err)
	}
}

func TestReadFails(t *testing.T) {
	root, file := tree(t)
	if _, err := Read(file, 3); err == nil || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("too long: %v", err)
	}
	if _, err := Read(filepath.Join(root, "none", "f"), 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Read(filepath.Join(file, "f"), 3); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
	if _, err := Read(root, 3); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	fifo := filepath.Join(root, "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	if _, err := Read(fifo, 3); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
	loop := filepath.Join(root, "loop")
	must(t, os.Symlink("loop", loop))
	if _, err := Read(loop, 3); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
	// Who may make the file that is missing may have it say anything.
	must(t, os.Chmod(filepath.Join(root, "links"), 0o777))
	if _, err := Read(filepath.Join(root, "links", "none"), 3); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing from everybody's directory: %v", err)
	}
	t.Chdir(filepath.Dir(file))
	if data, err := Read("f", 100); err != nil || string(data) != "content" {
		t.Errorf("a relative path: %q, %v", data, err)
	}
}

func TestCheckDir(t *testing.T) {
	root, file := tree(t)
	must(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	for path, want := range map[string]string{
		"etc": "", "links/etc": "", "none": "", "none/below": "", "/": "",
		"dangling":       "leads nowhere",
		"dangling/below": "leads nowhere",
		"etc/sub/f":      "not a directory",
		"sticky":         "chmod go-w", // others could make directories in it that openshell would use
		"sticky/below":   "",
	} {
		err := CheckDir(filepath.Join(root, path))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	must(t, os.Chmod(filepath.Dir(file), 0o777))
	if err := CheckDir(filepath.Dir(file) + "/below"); err == nil {
		t.Error("missing from everybody's directory: accepted")
	}
	if err := CheckFile(filepath.Join(root, "links", "f")); err == nil {
		t.Error("a file in everybody's directory: accepted")
	}
}

func BenchmarkRead(b *testing.B) {
	file := filepath.Join(b.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Read(file, 100); err != nil {
			b.Fatal(err)
		}
	}
}
