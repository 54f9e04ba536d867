// SPDX-License-Identifier: Apache-2.0

package observe

import "golang.org/x/sys/unix"

// An overlay does its changes in two directories of the host. In upperdir is
// what differs from the image, among that character devices 0/0 for what was
// deleted. What comes from the image is copied there before it is changed, with
// a mark of where it came from. In workdir things are prepared, and then renamed
// (Documentation/filesystems/overlayfs.rst, "whiteouts", "Non-directories").

// prepared finds out why something was renamed from workdir to upperdir. It may
// also be a copy of what is about to be changed, which is no access.
func (s *entries) prepared(e event, to place) {
	switch {
	case e.mask&unix.FAN_ONDIR == 0 && s.isWhiteout(e.child):
		s.find(e, to, e.to.name, Delete)
	case s.made.wasRemoved(to.join(e.to.name)):
		s.find(e, to, e.to.name, Create) // in place of the mark
	}
}

// isWhiteout reports whether a handle is of what marks a deleted file.
func (s *entries) isWhiteout(h handle) bool {
	fd, ok := s.open(h)
	if !ok {
		return true // and was removed with its directory since: a copy is told of by its own removal
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// isCopy reports whether a file of upperdir is the overlay's copy of the image's.
func (s *entries) isCopy(h handle) bool {
	fd, ok := s.open(h)
	if !ok {
		return false
	}
	defer unix.Close(fd)
	for _, attribute := range []string{"trusted.overlay.origin", "user.overlay.origin"} {
		if _, err := unix.Getxattr(linkTo(fd), attribute, nil); err == nil {
			return true
		}
	}
	return false
}

// open opens a file by its handle, for its attributes only.
func (s *entries) open(h handle) (fd int, ok bool) {
	v := s.volumes[h.fsid()]
	if v == nil {
		return -1, false
	}
	fd, err := unix.OpenByHandleAt(v.fd, h.file(), unix.O_PATH|unix.O_CLOEXEC)
	return fd, err == nil
}
