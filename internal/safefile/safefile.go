// SPDX-License-Identifier: Apache-2.0

// Package safefile owns whether a file may decide what is allowed: only where
// nobody but root can change it, or put another in its place. That holds for the
// file, for each directory above it, and for what symbolic links lead to.
package safefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
)

// maxLinks is how many symbolic links are followed (path_resolution(7)).
const maxLinks = 40

// Read reads a regular file of at most limit bytes. The directories above it are
// looked at first, so that also the error for a missing file, fs.ErrNotExist, is
// nobody else's doing.
func Read(name string, limit int64) ([]byte, error) {
	f, _, err := open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := Check(f); err != nil {
		return nil, err
	}
	data, err := fileio.ReadAll(f, limit)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return data, nil
}

// CheckFile looks at a file as Read does, without reading it.
func CheckFile(name string) error {
	f, _, err := open(name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	return Check(f)
}

// CheckDir looks at a directory and those above it. Those that are missing are no
// error, since only root can make them, but a symbolic link that leads nowhere
// is one.
func CheckDir(name string) error {
	f, links, err := open(name, unix.O_PATH)
	switch {
	case errors.Is(err, fs.ErrNotExist) && links == 0:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is a symbolic link, or below one, that leads nowhere (%w): make the directory that it leads to, or name another", name, err)
	case err != nil:
		return err
	}
	defer f.Close()
	return checkType(f, unix.S_IFDIR, "directory")
}

// Check holds an open file against what Read demands, but for the directories
// above it.
func Check(f *os.File) error { return checkType(f, unix.S_IFREG, "regular file") }

func checkType(f *os.File, kind uint32, is string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Mode&unix.S_IFMT != kind {
		return fmt.Errorf("%s is not a %s", f.Name(), is)
	}
	return check(int(f.Fd()), &st, f.Name(), false)
}

// open opens the last component of a path by way of descriptors: what has been
// looked at is what is gone through. It looks at everything but the last one. The
// file's name has its symbolic links resolved; links is how many there were.
func open(name string, flags int) (_ *os.File, links int, err error) {
	rest, err := filepath.Abs(name)
	if err != nil {
		return nil, 0, err
	}
	at, dir := "", -1 // the directory that has been reached
	defer func() { unix.Close(dir) }()
	for {
		part := "/"
		if !strings.HasPrefix(rest, "/") {
			part, rest, _ = strings.Cut(rest, "/")
		}
		rest = strings.TrimLeft(rest, "/")
		next := path.Join(at, part)
		if part == "/" {
			next = "/"
		}
		c, err := enter(dir, part, next)
		if err != nil {
			return nil, links, err
		}
		switch {
		case c.target != "":
			if links++; links > maxLinks {
				return nil, links, &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
			}
			rest = strings.TrimSuffix(c.target+"/"+rest, "/")
			if rest == "" {
				rest = "/"
			}
			unix.Close(c.fd)
		case rest != "":
			err := check(c.fd, &c.stat, next, true)
			unix.Close(dir)
			at, dir = next, c.fd
			if err != nil {
				return nil, links, err
			}
		case flags == unix.O_PATH:
			return os.NewFile(uintptr(c.fd), next), links, nil
		default:
			unix.Close(c.fd)
			fd, err := unix.Openat(dir, part, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, links, &fs.PathError{Op: "open", Path: next, Err: err}
			}
			return os.NewFile(uintptr(fd), next), links, nil
		}
	}
}

// component is a part of a path.
type component struct {
	fd     int
	stat   unix.Stat_t
	target string // of a symbolic link
}

// enter opens a part of a path in its directory. The owner of a symbolic link
// matters: in a sticky directory that one can put another in its place.
func enter(dir int, part, name string) (c component, err error) {
	c.fd, err = unix.Openat(dir, part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return c, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if err = unix.Fstat(c.fd, &c.stat); err == nil && c.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		buf := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(c.fd, "", buf); err == nil {
			c.target = string(buf[:n])
			if err = checkOwner(&c.stat, name); err != nil {
				unix.Close(c.fd)
				return c, err
			}
		}
	}
	if err != nil {
		unix.Close(c.fd)
		return c, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return c, nil
}

// check fails where others can write. In a sticky directory, as /tmp is, they
// can make files, but not replace those of root: passing says that it is only
// gone through.
func check(fd int, st *unix.Stat_t, name string, passing bool) error {
	if err := checkOwner(st, name); err != nil {
		return err
	}
	if passing && st.Mode&unix.S_ISVTX != 0 {
		return nil
	}
	others := st.Mode&0o002 != 0
	if st.Mode&0o020 != 0 && !others {
		others = !trustedGroup(st.Gid) || hasACL(fd)
	}
	if !others {
		return nil
	}
	return fmt.Errorf("%s has mode %04o and group %d, so that others than root can change what is allowed: chmod go-w %s",
		name, st.Mode&0o7777, st.Gid, name)
}

// checkOwner wants a file to be root's, or of who runs this program: that one
// can have the program do anything.
func checkOwner(st *unix.Stat_t, name string) error {
	if st.Uid == 0 || int(st.Uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to uid %d, who can change what is allowed: chown -h root %s", name, st.Uid, name)
}

func trustedGroup(gid uint32) bool {
	return gid == 0 || os.Geteuid() != 0 && int(gid) == os.Getegid()
}

// hasACL reports whether the group's bits may be somebody else's: with an access
// control list they are the most that any entry of it has (acl(5)).
func hasACL(fd int) bool {
	_, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "system.posix_acl_access", nil)
	return !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP)
}
