// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/internal/config"
)

// host is what a spec is held against: facts about this machine, so that the
// check itself touches nothing.
type host struct {
	guarded []guarded                        // what no container may see
	dev     place                            // /dev
	place   func(path string) (place, error) // what a path leads to; fs.ErrNotExist where it is missing
	hostPID func(ns string) bool             // the namespace of that path is the host's
}

// place is what a path leads to, whatever its name: a directory may be mounted
// in many places.
type place struct {
	path string // without links
	kind uint32 // of the file, as in stat's mode; 0 where it is missing
	// parts are the pieces of file systems that are seen there: its own first,
	// then what is mounted below it.
	parts []part
}

// part is a piece of a file system, by its root.
type part struct {
	device string // the file system's, MAJOR:MINOR
	path   string // in the file system
	fstype string
}

// contains reports whether a place shows another one.
func (p place) contains(other place) bool {
	target := other.parts[0]
	return slices.ContainsFunc(p.parts, func(own part) bool {
		return own.device == target.device && abspath.Within(target.path, own.path)
	})
}

// below returns the place of a path in the same file system.
func (p place) below(path string) place {
	own := p.parts[0]
	own.path = filepath.Join(own.path, path)
	return place{path: filepath.Join(p.path, path), parts: []part{own}}
}

// thisHost returns the facts about this machine. Relative paths are the
// bundle's. root is the low-level runtime's state directory.
func thisHost(c *config.Config, bundle, root string) host {
	mounts := sync.OnceValues(func() ([]*mountinfo.Info, error) { return mountinfo.GetMounts(nil) })
	type found struct {
		place place
		err   error
	}
	known := map[string]found{}
	return host{
		guarded: hostGuard(c, root),
		place: func(path string) (place, error) {
			path = absolute(bundle, path)
			f, ok := known[path]
			if !ok {
				all, err := mounts()
				if err != nil {
					return place{}, fmt.Errorf("read the host's mounts: %w", err)
				}
				f.place, f.err = find(path, all)
				known[path] = f
			}
			return f.place, f.err
		},
		hostPID: func(ns string) bool {
			var a, b unix.Stat_t
			if unix.Stat(ns, &a) != nil || unix.Stat("/proc/self/ns/pid", &b) != nil {
				return true // in doubt, it is
			}
			return a.Dev == b.Dev && a.Ino == b.Ino
		},
	}
}

// find returns what a path leads to. The kernel resolves it, but not through
// the magic links of /proc: they lead elsewhere for another process.
func find(path string, mounts []*mountinfo.Info) (place, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	switch {
	case errors.Is(err, unix.ELOOP):
		return place{}, errors.New("it leads through a link of /proc, or through too many")
	case err != nil:
		return place{}, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_TYPE|unix.STATX_MNT_ID, &st); err != nil {
		return place{}, fmt.Errorf("stat: %w", err)
	}
	real, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return place{}, err
	}
	parts, err := partsAt(mounts, int(st.Mnt_id), real)
	return place{path: real, kind: uint32(st.Mode) & unix.S_IFMT, parts: parts}, err
}

// partsAt returns what is seen at a path of the mount with an id; 0 where the
// kernel does not tell (before Linux 5.8), for the one that its name is in.
func partsAt(mounts []*mountinfo.Info, id int, path string) ([]part, error) {
	var own *mountinfo.Info
	var parts []part
	for _, m := range mounts {
		switch {
		case m.ID == id, id == 0 && abspath.Within(path, m.Mountpoint) &&
			(own == nil || len(m.Mountpoint) >= len(own.Mountpoint)):
			own = m
		case abspath.Within(m.Mountpoint, path):
			parts = append(parts, partOf(m))
		}
	}
	if own == nil || !abspath.Within(path, own.Mountpoint) {
		return nil, fmt.Errorf("%s is on no mount of this process", path)
	}
	first := partOf(own)
	first.path = filepath.Join(first.path, strings.TrimPrefix(path, strings.TrimSuffix(own.Mountpoint, "/")))
	return append([]part{first}, parts...), nil
}

func partOf(m *mountinfo.Info) part {
	return part{device: fmt.Sprintf("%d:%d", m.Major, m.Minor), path: m.Root, fstype: m.FSType}
}

// nearest is place for a path that may be missing, or partly.
func (h host) nearest(path string) (place, error) {
	p, err := h.place(path)
	if !errors.Is(err, fs.ErrNotExist) || path == "/" {
		return p, err
	}
	parent, err := h.nearest(filepath.Dir(path))
	if err != nil {
		return place{}, err
	}
	return parent.below(filepath.Base(path)), nil
}

// settle looks up what all sources are held against, once.
func (h host) settle() (host, error) {
	var err error
	if h.dev, err = h.nearest("/dev"); err != nil {
		return host{}, fmt.Errorf("/dev: %w", err)
	}
	h.guarded = slices.Clone(h.guarded)
	for i := range h.guarded {
		g := &h.guarded[i]
		if g.at, err = h.nearest(g.path); err != nil {
			return host{}, fmt.Errorf("%s: %w", g.path, err)
		}
	}
	return h, nil
}
