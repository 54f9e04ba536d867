// SPDX-License-Identifier: Apache-2.0

// Package rootfs owns how files of a container are touched from the host: those
// of its root file system and of what is mounted into it. Images and workloads
// choose what is there, and may change it at any moment.
//
// So everything goes through a descriptor of the root (openat2(2)) and by paths
// without symbolic links: where one appears on the way, the access fails, and
// nothing outside is reached. Resolve makes such a path of any other. A file's
// type and size are those of the descriptor that is then read; devices and FIFOs
// are never opened. Only directories are removed that were made here.
package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
)

// Location is where a root file system, or the source of a bind mount, is on the
// host. That is the engine's word, which is trusted. What lies below is not, which
// is why nobody gets the path to add to.
type Location struct{ path string }

// At returns the location of a path of the host.
func At(path string) Location { return Location{path} }

// OfProcess returns the location of a process's root directory, with all that is
// mounted there.
func OfProcess(pid int) Location { return At(fmt.Sprintf("/proc/%d/root", pid)) }

// IsZero reports whether the location is none.
func (l Location) IsZero() bool { return l.path == "" }

// MarshalText returns the path.
func (l Location) MarshalText() ([]byte, error) { return []byte(l.path), nil }

// UnmarshalText is the reverse of MarshalText.
func (l *Location) UnmarshalText(text []byte) error {
	l.path = string(text)
	return nil
}

// Path is a path without links below a location. The zero value is none.
type Path struct {
	Location Location `json:"location"`
	Path     string   `json:"path"`
}

// Read reads a regular file of at most limit bytes, and tells which it was.
func (p Path) Read(limit int64) ([]byte, File, error) {
	root, err := p.Location.Open()
	if err != nil {
		return nil, File{}, err
	}
	defer root.Close()
	return root.ReadFile(p.Path, limit)
}

// ReadFiles reads those regular files of a directory that everybody may read, by
// name: at most count, of at most limit bytes together. Anything else in it is left
// out.
func (p Path) ReadFiles(count int, limit int64) (map[string][]byte, error) {
	root, err := p.Location.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := root.ReadDir(p.Path, count)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, name := range names {
		data, file, err := root.ReadFile(path.Join(p.Path, name), limit)
		if !file.IsRegular() || file.Mode&unix.S_IROTH == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = data
		limit -= int64(len(data))
	}
	return files, nil
}

// Open opens what is there.
func (l Location) Open() (*Root, error) {
	fd, err := unix.Open(l.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: l.path, Err: err}
	}
	return &Root{os.NewFile(uintptr(fd), l.path)}, nil
}

// maxDepth bounds how deep a root directory may be.
const maxDepth = 256

// OpenTop opens the root of the mount namespace that the location is in: a process may
// have chosen a root directory of its own (chroot(2)).
func (l Location) OpenTop() (*Root, error) {
	r, err := l.Open()
	if err != nil {
		return nil, err
	}
	for range maxDepth {
		above, err := r.parent()
		if err != nil {
			r.Close()
			return nil, &os.PathError{Op: "open the parent of", Path: l.path, Err: err}
		}
		top := r.same(above)
		r.Close()
		if r = above; top {
			return r, nil
		}
	}
	r.Close()
	return nil, &os.PathError{Op: "open the parents of", Path: l.path, Err: unix.ENAMETOOLONG}
}

// parent opens the directory above the root, which is the root itself at the top.
func (r *Root) parent() (*Root, error) {
	fd, err := unix.Openat(int(r.file.Fd()), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Root{os.NewFile(uintptr(fd), "root")}, nil
}

// same reports whether both are one directory of one mount, as far as the kernel tells mounts apart.
func (r *Root) same(other *Root) bool {
	var a, b unix.Statx_t
	const mask = unix.STATX_INO | unix.STATX_MNT_ID
	return unix.Statx(int(r.file.Fd()), "", unix.AT_EMPTY_PATH, mask, &a) == nil &&
		unix.Statx(int(other.file.Fd()), "", unix.AT_EMPTY_PATH, mask, &b) == nil &&
		a.Ino == b.Ino && a.Dev_major == b.Dev_major && a.Dev_minor == b.Dev_minor && a.Mnt_id == b.Mnt_id
}

// Root is an open location. Paths are taken from there, whatever they begin with;
// "/" is the location itself, which need not be a directory. Errors do not name
// the host's path.
type Root struct{ file *os.File } // O_PATH

// Close closes the root. The nil one has nothing to close.
func (r *Root) Close() {
	if r != nil {
		r.file.Close()
	}
}

// ID is a file's identity on this host.
type ID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// File is what a descriptor tells of a file.
type File struct {
	ID
	Mode     uint32 // st_mode of stat(2)
	Size     int64
	UID, GID uint32
}

// IsRegular reports whether it is a regular file.
func (f File) IsRegular() bool { return f.Mode&unix.S_IFMT == unix.S_IFREG }

// IsDir reports whether it is a directory.
func (f File) IsDir() bool { return f.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsLink reports whether it is a symbolic link.
func (f File) IsLink() bool { return f.Mode&unix.S_IFMT == unix.S_IFLNK }

// open opens a path without symbolic links. The caller closes the descriptor.
func (r *Root) open(p string, flags uint64) (int, error) {
	if p = strings.TrimPrefix(path.Clean("/"+p), "/"); p == "" {
		return unix.FcntlInt(r.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	return openAt(int(r.file.Fd()), p, flags)
}

func openAt(dir int, p string, flags uint64) (int, error) {
	for {
		fd, err := unix.Openat2(dir, p, &unix.OpenHow{
			Flags:   flags | unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
		})
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func fileOf(fd int) (File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return File{}, err
	}
	return File{ID{st.Dev, st.Ino}, st.Mode, st.Size, st.Uid, st.Gid}, nil
}

// Lstat tells what is at a path. The path has no links but at its end.
func (r *Root) Lstat(p string) (File, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return File{}, err
	}
	defer unix.Close(fd)
	return fileOf(fd)
}

// MountID returns the id of the mount that is at a path (statx(2)).
func (r *Root) MountID(p string) (uint64, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, errors.New("the kernel tells no mount id: Linux 5.8 is needed")
	}
	return st.Mnt_id, nil
}

// Readlink returns the target of the symbolic link at a path, "" where something
// else is there.
func (r *Root) Readlink(p string) (string, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	f, err := fileOf(fd)
	if err != nil || !f.IsLink() {
		return "", err
	}
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", target)
	if err == nil && (n == 0 || n == len(target)) {
		err = unix.ENAMETOOLONG
	}
	if err != nil {
		return "", err
	}
	return string(target[:n]), nil
}

// ReadFile reads a regular file of at most limit bytes, and tells which it was,
// as far as it came. The path has no links.
func (r *Root) ReadFile(p string, limit int64) ([]byte, File, error) {
	f, file, err := r.OpenFile(p)
	if err != nil {
		return nil, file, err
	}
	defer f.Close()
	if file.Size > limit {
		return nil, file, fileio.TooLarge(limit)
	}
	data, err := fileio.ReadAll(f, limit)
	if err != nil {
		return nil, file, err
	}
	return data, file, nil
}

// OpenFile opens a regular file to be read, and tells which it is, as far as it came. The path has no links.
func (r *Root) OpenFile(p string) (*os.File, File, error) {
	fd, err := r.open(p, 0)
	if err != nil {
		return nil, File{}, err
	}
	defer unix.Close(fd)
	file, err := fileOf(fd)
	switch {
	case err != nil:
		return nil, File{}, err
	case !file.IsRegular():
		return nil, file, errors.New("not a regular file")
	}
	f, err := reopen(fd, unix.O_RDONLY)
	return f, file, err
}

// ReadDir lists a directory of at most limit entries, sorted. The path has no links.
func (r *Root) ReadDir(p string, limit int) ([]string, error) {
	fd, err := r.open(p, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	opened, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(opened), "directory")
	defer dir.Close()
	names, err := dir.Readdirnames(limit + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(names) > limit {
		return nil, fmt.Errorf("more than %d entries", limit)
	}
	slices.Sort(names)
	return names, nil
}

// reopen opens the regular file of a descriptor for use. One with a lease on it
// (fcntl(2)) is not waited for.
func reopen(fd, flags int) (*os.File, error) {
	opened, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(opened), "file"), nil
}

// WriteFile gives a regular file new content, or makes it. The path has no links.
func (r *Root) WriteFile(p string, data []byte, mode uint32) error {
	fd, err := r.open(p, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return r.create(p, data, mode)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	file, err := fileOf(fd)
	if err != nil {
		return err
	}
	if !file.IsRegular() {
		return errors.New("not a regular file")
	}
	f, err := reopen(fd, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func (r *Root) create(p string, data []byte, mode uint32) error {
	dir, err := r.open(path.Dir(path.Clean("/"+p)), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, path.Base(p), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "file")
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// maxLinks is how many symbolic links the kernel follows (path_resolution(7)).
const maxLinks = 40

// Resolve follows the symbolic links of a path as the kernel does in a process
// that has the root. What is missing is named as if it were there.
func (r *Root) Resolve(p string) (string, error) { return Resolve(p, r.Readlink) }

// Resolve is Root.Resolve for any file system: readlink is asked for each part
// of the path, which has no links before its end.
func Resolve(p string, readlink func(string) (target string, err error)) (string, error) {
	at, rest := "/", p
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		next := path.Join(at, part) // handles ".", ".." and ""
		target, err := readlink(next)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
			return path.Join(next, rest), nil
		case err != nil:
			return "", err
		case target == "":
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return at, nil
}
