// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
)

// mount is a mount of the container.
type mount struct {
	id        int
	point     string // in the container
	root      string // of its file system, what is mounted
	dev       uint64 // as in stat(2)
	fstype    string
	source    map[string]string // the file system's own options
	directory bool
	readOnly  bool
	fd        int // O_PATH, until the next scan
}

// mounts are a container's mounts. While it is open they stay where they are,
// even when the container has ended.
type mounts struct {
	info    *os.File // /proc/PID/mountinfo
	root    int      // the container's root directory, O_PATH
	ns      string   // the mount namespace, as its link reads
	ids     map[int]struct{}
	aliased map[uint64]bool // by dev: some of its files are there under two paths
	fresh   []*mount
}

func openMounts(pid int) (_ *mounts, err error) {
	m := &mounts{root: -1, ids: map[int]struct{}{}}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	// Not os.Open, with which Go's own poller would take the news of changes.
	info, err := unix.Open(filepath.Join(proc, "mountinfo"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mountinfo: %w", err)
	}
	m.info = os.NewFile(uintptr(info), "mountinfo")
	if m.root, err = unix.Open(filepath.Join(proc, "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open root directory: %w", err)
	}
	if m.ns, err = os.Readlink(filepath.Join(proc, "ns/mnt")); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *mounts) close() {
	m.release()
	if m.root >= 0 {
		unix.Close(m.root)
	}
	if m.info != nil {
		m.info.Close()
	}
}

func (m *mounts) release() {
	for _, f := range m.fresh {
		unix.Close(f.fd)
	}
	m.fresh = nil
}

// maxMounts bounds what is watched of one container.
const maxMounts = 4096

// scan returns the mounts that were not there before.
func (m *mounts) scan() ([]*mount, error) {
	m.release()
	if _, err := m.info.Seek(0, 0); err != nil {
		return nil, err
	}
	all, err := mountinfo.GetMountsFromReader(m.info, nil)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("it has no mounts, or has ended")
	}
	if len(all) > maxMounts {
		return nil, fmt.Errorf("it has %d mounts, at most %d are watched", len(all), maxMounts)
	}
	m.findAliases(all)
	known := m.ids
	m.ids = make(map[int]struct{}, len(all))
	for _, info := range all {
		if _, had := known[info.ID]; had {
			m.ids[info.ID] = struct{}{}
			continue
		}
		fresh, err := m.open(info)
		if err != nil {
			continue // out of reach below another mount, or gone again
		}
		m.ids[info.ID] = struct{}{}
		m.fresh = append(m.fresh, fresh)
	}
	return m.fresh, nil
}

// open opens the place of a mount, and makes sure that it is that mount which is
// there.
func (m *mounts) open(info *mountinfo.Info) (*mount, error) {
	fd, err := m.lookup(info.Mountpoint)
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil ||
		st.Mnt_id != uint64(info.ID) {
		unix.Close(fd)
		return nil, errors.Join(err, unix.ESTALE)
	}
	f := &mount{
		id: info.ID, point: path.Clean(info.Mountpoint), root: info.Root, fd: fd,
		dev: unix.Mkdev(uint32(info.Major), uint32(info.Minor)), fstype: info.FSType,
		source:    map[string]string{},
		directory: st.Mode&unix.S_IFMT == unix.S_IFDIR,
	}
	for option := range strings.SplitSeq(info.Options, ",") {
		f.readOnly = f.readOnly || option == "ro"
	}
	for option := range strings.SplitSeq(info.VFSOptions, ",") {
		key, value, _ := strings.Cut(option, "=")
		f.source[key] = value
	}
	return f, nil
}

// lookup opens a path of the container, as the container would but for symbolic
// links.
func (m *mounts) lookup(p string) (int, error) {
	return unix.Openat2(m.root, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// has reports whether a mount is the container's.
func (m *mounts) has(id uint64) bool {
	_, ok := m.ids[int(id)]
	return ok
}

// findAliases finds the file systems of which two mounts show the same files at
// different paths.
func (m *mounts) findAliases(all []*mountinfo.Info) {
	m.aliased = map[uint64]bool{}
	byDev := map[uint64][]*mountinfo.Info{}
	for _, info := range all {
		dev := unix.Mkdev(uint32(info.Major), uint32(info.Minor))
		for _, other := range byDev[dev] {
			m.aliased[dev] = m.aliased[dev] || alias(info, other) || alias(other, info)
		}
		byDev[dev] = append(byDev[dev], info)
	}
}

// alias reports whether what inner shows is in outer too, at another path.
func alias(inner, outer *mountinfo.Info) bool {
	rel, ok := abspath.Rel(inner.Root, outer.Root)
	return ok && path.Join(outer.Mountpoint, rel) != path.Clean(inner.Mountpoint)
}

// cutLast splits a clean absolute path at its last element.
func cutLast(p string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 || i == len(p)-1 {
		return p, "", false
	}
	return p[:max(i, 1)], p[i+1:], true
}

// linkTo names a descriptor for calls that take a path.
func linkTo(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
