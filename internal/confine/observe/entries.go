// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"errors"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
)

// entries are the changes of directories: a group whose events come with the
// directory's handle and the name. The kernel has such marks for whole file
// systems only, so that events of others come in too, and are told apart by
// where they happened and who did it. An overlay has none at all; there, the
// directory on the host is watched that takes its changes.
type entries struct {
	fd        int
	mounts    *mounts
	processes *processes
	options   *Options
	made      made
	specials  *specials
	volumes   map[string]*volume // by fsid
	own       map[uint64]string  // by dev: where this process has a mount of the whole
	batch     []event
	pending   []event            // whose directory had gone, without a word of it yet
	links     map[handle][]entry // the names of directories, as the batch tells them
	found     []Access
}

// volume is a file system that is watched.
type volume struct {
	fd      int // a directory on a mount of the whole file system
	anchors []anchor
	places  map[handle]place
}

// anchor is a directory by which the container has a part of a volume.
type anchor struct {
	volume string // the directory's path, as the volume's fd shows it
	inside string // in the container
	// private says that nobody else has business there, so that what happens is
	// the container's.
	private bool
	// upper takes an overlay's changes; work is where the overlay prepares them.
	upper, work bool
}

// place is where a directory is.
type place struct {
	path string // in the container
	at   *anchor
}

func (p place) join(name string) string { return strings.TrimSuffix(p.path, "/") + "/" + name }

const (
	entryMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_RENAME | unix.FAN_ONDIR

	// maxPlaces is how many directories of a volume are remembered.
	maxPlaces = 1 << 14
	maxNested = 64 // directories that were made and gone before they were looked at
)

func newEntries(o *Observer) (*entries, error) {
	// FAN_RENAME and the target's handle came with 5.17.
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC|unix.FAN_UNLIMITED_MARKS|
		unix.FAN_REPORT_DFID_NAME_TARGET, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, errors.New("needs Linux 5.17")
	}
	if err != nil {
		return nil, initError(err)
	}
	return &entries{
		fd: fd, mounts: o.mounts, processes: o.processes, options: &o.options, specials: newSpecials(fd, o),
		made: newMade(), volumes: map[string]*volume{}, links: map[handle][]entry{},
	}, nil
}

func (s *entries) close() {
	unix.Close(s.fd)
	s.specials.close()
	for _, v := range s.volumes {
		unix.Close(v.fd)
	}
}

// pseudo are file systems on which nothing is created by name, or nothing that is
// a file.
var pseudo = map[string]bool{
	"proc": true, "sysfs": true, "cgroup": true, "cgroup2": true, "devpts": true, "mqueue": true, "securityfs": true,
	"debugfs": true, "tracefs": true, "bpf": true, "pstore": true, "configfs": true, "efivarfs": true,
}

// mark watches the file system of a mount, where the container can change it.
func (s *entries) mark(m *mount) error {
	if !m.directory || m.readOnly || pseudo[m.fstype] {
		return nil
	}
	if m.fstype != "overlay" {
		v, private, err := s.watch(m.fd, m.dev)
		if err != nil {
			return err
		}
		return v.anchor(m.fd, anchor{inside: m.point, private: private || m.point == "/"})
	}
	for _, dir := range []struct {
		option string
		anchor anchor
	}{
		{"workdir", anchor{inside: m.point, private: true, work: true}},
		{"upperdir", anchor{inside: m.point, private: true, upper: true}},
	} {
		if err := s.markLayer(m.source[dir.option], dir.anchor); err != nil {
			return err
		}
	}
	return nil
}

// markLayer watches a directory of the host's that an overlay writes to.
func (s *entries) markLayer(name string, a anchor) error {
	if name == "" {
		return nil // the overlay is read-only
	}
	if name[0] != '/' {
		return errors.New("the overlay's directories have relative names: " + name)
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	v, _, err := s.watch(fd, st.Dev)
	if err != nil {
		return err
	}
	return v.anchor(fd, a)
}

// watch returns the volume of a directory. It is private where this process has
// no mount of it.
func (s *entries) watch(fd int, dev uint64) (v *volume, private bool, err error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return nil, false, os.NewSyscallError("fstatfs", err)
	}
	fsid := fsidOf(&fs)
	own, shared := s.own[dev]
	private = !shared
	if v, ok := s.volumes[fsid]; ok {
		return v, private, nil
	}
	at := own
	if private {
		at = linkTo(fd)
	}
	// Not O_PATH, by which open_by_handle_at(2) knows no mount.
	whole, err := unix.Open(at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: at, Err: err}
	}
	if err := unix.FanotifyMark(s.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, entryMask, whole, ""); err != nil {
		unix.Close(whole)
		return nil, false, os.NewSyscallError("fanotify_mark", err)
	}
	v = &volume{fd: whole, places: map[handle]place{}}
	s.volumes[fsid] = v
	return v, private, nil
}

// readOwn reads where this process has mounts of whole file systems.
func (s *entries) readOwn() error {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Root != "/", false })
	if err != nil {
		return err
	}
	s.own = map[uint64]string{}
	for _, m := range all {
		dev := unix.Mkdev(uint32(m.Major), uint32(m.Minor))
		var st unix.Stat_t
		if unix.Stat(m.Mountpoint, &st) == nil && st.Dev == dev { // and nothing is mounted over it
			s.own[dev] = m.Mountpoint
		}
	}
	return nil
}

// anchor makes a directory known as the container's.
func (v *volume) anchor(fd int, a anchor) error {
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return os.NewSyscallError("name_to_handle_at", err)
	}
	if a.volume, err = v.open(h); err != nil {
		return err
	}
	v.anchors = append(v.anchors, a)
	clear(v.places)
	return nil
}

// open returns the path of a directory, as the volume's fd shows it.
func (v *volume) open(h unix.FileHandle) (string, error) {
	fd, err := unix.OpenByHandleAt(v.fd, h, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", os.NewSyscallError("open_by_handle_at", err)
	}
	defer unix.Close(fd)
	return os.Readlink(linkTo(fd))
}

// take takes an event in, for settle.
func (s *entries) take(e event) {
	s.batch = append(s.batch, e)
	if e.mask&unix.FAN_ONDIR == 0 || e.child == "" {
		return
	}
	// A directory that has gone by now is found by the name it had first.
	s.links[e.child] = append(s.links[e.child], e.from)
	if e.mask&unix.FAN_RENAME != 0 {
		s.links[e.child] = append(s.links[e.child], e.to)
	}
}

// settle finds out what a batch of events was about. The event of a directory's
// end may come a moment after the end: what happened in that directory waits for
// it, until the next batch.
func (s *entries) settle() {
	waiting := s.pending
	s.pending = nil
	for _, e := range waiting {
		from, _ := s.locate(e.from.dir, 0)
		to, _ := s.locate(e.to.dir, 0)
		s.settleEvent(e, from, to)
	}
	for _, e := range s.batch {
		if a, ok := s.specials.take(e); ok {
			s.found = append(s.found, a)
		}
		if e.mask&(entryMask&^unix.FAN_ONDIR) == 0 {
			continue
		}
		from, fromGone := s.locate(e.from.dir, 0)
		to, toGone := s.locate(e.to.dir, 0)
		if fromGone || toGone {
			s.pending = append(s.pending, e)
			continue
		}
		s.settleEvent(e, from, to)
	}
	clear(s.batch)
	s.batch = s.batch[:0]
	clear(s.links)
}

// settleEvent finds out what an event was about that happened in the directory
// from and, a renaming, in the directory to.
func (s *entries) settleEvent(e event, from, to place) {
	fromOK, toOK := from.at != nil, to.at != nil
	if e.mask&unix.FAN_RENAME != 0 {
		if e.mask&unix.FAN_ONDIR != 0 {
			for _, v := range s.volumes {
				clear(v.places) // some of the paths are others now
			}
		}
		if fromOK && from.at.work {
			if toOK && to.at.upper {
				s.prepared(e, to)
			}
			return
		}
		if toOK && to.at.work {
			if fromOK && (e.mask&unix.FAN_ONDIR != 0 || !s.isWhiteout(e.child)) {
				s.find(e, from, e.from.name, Delete)
			}
			return
		}
		if fromOK {
			s.find(e, from, e.from.name, Rename|Delete)
		}
		if toOK {
			s.find(e, to, e.to.name, Rename|Create)
		}
		return
	}
	if !fromOK || from.at.work {
		return
	}
	// An event may stand for both, when a file did not live long.
	var kinds Kind
	if e.mask&unix.FAN_CREATE != 0 && !(from.at.upper && s.isCopy(e.child)) {
		kinds |= Create
	}
	if e.mask&unix.FAN_DELETE != 0 {
		kinds |= Delete
	}
	if kinds != 0 {
		s.find(e, from, e.from.name, kinds)
	}
	if v := s.volumes[e.child.fsid()]; v != nil && e.mask&unix.FAN_DELETE != 0 {
		delete(v.places, e.child)
	}
}

// find adds what was done by a process of the workload.
func (s *entries) find(e event, dir place, name string, kinds Kind) {
	path := dir.join(name)
	if kinds&Create != 0 {
		s.made.add(path)
	}
	if kinds&Delete != 0 {
		s.made.remove(path)
	}
	decide := s.processes.member
	if dir.at.private {
		decide = s.processes.workload
	}
	binary, ok := decide(e.pid)
	if ok {
		s.found = append(s.found, Access{Path: path, Kinds: kinds, PID: e.pid, Binary: binary})
	}
	// What is made in an overlay's upper directory is another file than the overlay's.
	if binary == "" && kinds&Create != 0 && e.mask&unix.FAN_ONDIR == 0 && !dir.at.upper {
		s.specials.created(path, dir.at.private)
	}
}

// locate tells where a directory is. The place has no anchor where the container
// does not have the directory. A directory is gone that was deleted, with no
// event yet of what it was called.
func (s *entries) locate(h handle, depth int) (p place, gone bool) {
	v := s.volumes[h.fsid()]
	if v == nil || depth > maxNested {
		return place{}, false
	}
	if p, ok := v.places[h]; ok {
		return p, false
	}
	p, gone = v.find(h)
	if p.at == nil || p.at.work {
		for _, link := range s.links[h] {
			if parent, _ := s.locate(link.dir, depth+1); parent.at != nil && !parent.at.work {
				return place{parent.join(link.name), parent.at}, false
			}
		}
	}
	if gone {
		return place{}, true
	}
	if len(v.places) >= maxPlaces {
		clear(v.places)
	}
	v.places[h] = p
	return p, false
}

// find looks up where a directory is now.
func (v *volume) find(h handle) (p place, gone bool) {
	name, err := v.open(h.file())
	if err != nil || strings.HasSuffix(name, deletedSuffix) {
		return place{}, true
	}
	for i := range v.anchors {
		a := &v.anchors[i]
		if rel, ok := abspath.Rel(name, a.volume); ok && (p.at == nil || len(a.volume) > len(p.at.volume)) {
			p = place{strings.TrimSuffix(a.inside, "/") + "/" + rel, a}
		}
	}
	return p, false
}
