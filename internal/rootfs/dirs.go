// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is a directory in a root.
type Dir struct {
	Path string `json:"path"` // without links
	ID
	Made bool `json:"-"` // by MakeDirs, just now
}

// MakeDirs makes a directory, and those above it that are missing. It returns all
// on the way, outermost first, also where it fails. The path has no links.
func (r *Root) MakeDirs(p string) (dirs []Dir, err error) {
	parent, err := r.open("/", 0)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(parent) }()
	at := "/"
	p = strings.Trim(path.Clean("/"+p), "/")
	if p == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		at = path.Join(at, name)
		fd, made, err := openOrMake(parent, name)
		if err != nil {
			return dirs, err
		}
		unix.Close(parent)
		parent = fd
		f, err := fileOf(fd)
		if err != nil {
			return dirs, err
		}
		dirs = append(dirs, Dir{at, f.ID, made})
	}
	return dirs, nil
}

// Mount mounts a file system over a directory (mount(2)). The path has no links.
func (r *Root) Mount(source, p, kind string, flags uintptr, data string) error {
	fd, err := r.open(p, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Mount(source, fmt.Sprintf("/proc/self/fd/%d", fd), kind, flags, data)
}

// openOrMake opens a directory's entry. Somebody in the container may put another
// directory in the place of what was made, before it is opened here. That is one
// that they could have removed themselves, as it will be.
func openOrMake(parent int, name string) (fd int, made bool, err error) {
	if fd, err = openAt(parent, name, unix.O_DIRECTORY); !errors.Is(err, fs.ErrNotExist) {
		return fd, false, err
	}
	if err := mkdirAt(parent, name); err != nil && !errors.Is(err, fs.ErrExist) {
		return -1, false, err
	} else if err == nil {
		made = true
	}
	fd, err = openAt(parent, name, unix.O_DIRECTORY)
	return fd, made, err
}

// mkdirAt makes a directory that every user can enter, whatever the umask. That is
// the process's, but for a thread that has left the others in this; it ends here.
func mkdirAt(parent int, name string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			unix.Umask(0)
			err = unix.Mkdirat(parent, name, 0o755)
		}
		done <- err
	}()
	return <-done
}

// Remove removes a directory that was made, if it is still at its path and is
// empty. What others put there, or where a link leads to now, is left alone.
func (r *Root) Remove(d Dir) error {
	parent, err := r.open(path.Dir(d.Path), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, path.Base(d.Path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if (ID{st.Dev, st.Ino}) != d.ID || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ESTALE
	}
	// Between the two calls another directory can only come there from where
	// those who move it could have removed it.
	return unix.Unlinkat(parent, path.Base(d.Path), unix.AT_REMOVEDIR)
}
