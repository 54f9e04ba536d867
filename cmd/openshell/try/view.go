// SPDX-License-Identifier: Apache-2.0

package try

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/policy"
)

// view is what a command sees of this host. Paths are absolute, with no links in
// them.
type view struct {
	cwd     string
	absent  []string // are not there
	emptied []string // are there, with nothing in them
	// shown is the working directory where the root's overlay does not have it:
	// below what is emptied, or on a file system of its own; or it is empty.
	shown  string
	masked []string // below a working directory that is the host's own
	// withoutWorkdir: to be there is not enough to have it.
	withoutWorkdir bool
}

// newView decides what a command sees that is started in cwd. real says that the
// working directory is to be the host's own; rules are the files of its policy.
func newView(c *config.Config, cwd string, real bool, rules policy.Filesystem) (v view, err error) {
	if v.cwd, err = filepath.EvalSymlinks(cwd); err != nil {
		return v, fmt.Errorf("the current directory: %w", err)
	}
	if v.absent, err = hiddenOf(c, slices.Concat(rules.ReadOnly, rules.ReadWrite)); err != nil {
		return v, fmt.Errorf("look for what the command must not see: %w", err)
	}
	for _, dir := range v.absent {
		if abspath.Within(v.cwd, dir) {
			return v, fmt.Errorf("the current directory is in %s, which no command sees unless its policy names it: change to another", dir)
		}
	}
	all, err := accounts("/etc/passwd")
	if err != nil {
		return v, err
	}
	h := findHomes(all, os.Getenv)
	v.withoutWorkdir = h.holds(v.cwd)
	mounted, err := isMounted(v.cwd)
	if err != nil {
		return v, err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		mounted = mounted && !abspath.Within(v.cwd, dir) // the command has its own
	}
	for _, dir := range h.others {
		// Who is in a home means to work there.
		if abspath.Within(v.cwd, dir) {
			v.emptied, mounted = append(v.emptied, dir), true
		} else {
			v.absent = append(v.absent, dir)
		}
	}
	for _, dir := range temporary {
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			continue
		}
		v.emptied = append(v.emptied, dir)
		mounted = mounted || v.cwd != dir && abspath.Within(v.cwd, dir)
	}
	switch {
	case real: // it is mounted with everything in it
		for _, dir := range slices.Concat(v.absent, v.emptied) {
			if dir != v.cwd && abspath.Within(dir, v.cwd) {
				v.masked = append(v.masked, dir)
			}
		}
	case mounted:
		v.shown = v.cwd
	}
	return v, nil
}

// isMounted reports whether a directory is on another file system than the root,
// whose overlay does not show it then.
func isMounted(dir string) (bool, error) {
	var root, st unix.Stat_t
	if err := errors.Join(unix.Stat("/", &root), unix.Stat(dir, &st)); err != nil {
		return false, err
	}
	return root.Dev != st.Dev, nil
}

// layers are the directories of an overlay.
type layers struct{ lower, upper, work string }

// newLayers prepares an overlay of a directory of the host's: its upper layer has
// what of the view differs from the directory.
func newLayers(dir, lower string, v view) (l layers, err error) {
	l = layers{lower: lower, upper: filepath.Join(dir, "upper"), work: filepath.Join(dir, "work")}
	for _, d := range []string{dir, l.upper, l.work} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return l, err
		}
	}
	if err := copyOwner(l.upper, lower); err != nil {
		return l, err
	}
	// Parents first: what is in a directory that is not there is neither.
	slices.Sort(v.absent)
	slices.Sort(v.emptied)
	for _, path := range v.emptied {
		if path != lower && abspath.Within(path, lower) {
			if err := l.empty(path); err != nil {
				return l, err
			}
		}
	}
	for _, path := range v.absent {
		if path != lower && abspath.Within(path, lower) {
			if err := l.remove(path); err != nil {
				return l, err
			}
		}
	}
	if v.shown != "" && v.shown != lower && abspath.Within(v.shown, lower) {
		err = l.makeDir(v.shown)
	}
	return l, err
}

// mount mounts the overlay over a directory of a root file system, which is made
// where it is not there. The path has no links.
func (l layers) mount(root *rootfs.Root, at string) error {
	_, err := root.MakeDirs(at)
	if err == nil {
		err = root.Mount("overlay", at, "overlay", 0,
			fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", option(l.lower), option(l.upper), option(l.work)))
	}
	if err != nil {
		return fmt.Errorf("mount overlay over %s: %w", l.lower, err)
	}
	return nil
}

// option escapes what divides an overlay's options and layers (overlayfs.rst).
var option = strings.NewReplacer(`\`, `\\`, ",", `\,`, ":", `\:`).Replace

// in is the place in the upper layer of a path of the host's.
func (l layers) in(path string) string {
	rel, err := filepath.Rel(l.lower, path)
	if err != nil {
		return l.upper // both are absolute: it cannot be
	}
	return filepath.Join(l.upper, rel)
}

// remove marks a path as removed (Documentation/filesystems/overlayfs.rst,
// "whiteouts and opaque directories").
func (l layers) remove(path string) error {
	if l.isHidden(path) {
		return nil
	}
	if err := l.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := unix.Mknod(l.in(path), unix.S_IFCHR, 0); err != nil {
		return &os.PathError{Op: "hide", Path: path, Err: err}
	}
	return nil
}

// empty makes a directory opaque.
func (l layers) empty(path string) error {
	if err := l.makeDir(path); err != nil {
		return err
	}
	if err := unix.Setxattr(l.in(path), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return &os.PathError{Op: "hide", Path: path, Err: err}
	}
	return nil
}

// isHidden reports whether a path lies in what is removed or emptied already.
func (l layers) isHidden(path string) bool {
	for ; path != l.lower && path != "/"; path = filepath.Dir(path) {
		var st unix.Stat_t
		if unix.Lstat(l.in(path), &st) != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			return true
		}
		if _, err := unix.Getxattr(l.in(path), "trusted.overlay.opaque", nil); err == nil {
			return true
		}
	}
	return false
}

// makeDir makes a directory in the upper layer with those above it, each with the
// mode and the owner that it has on the host.
func (l layers) makeDir(path string) error {
	if path == l.lower {
		return nil
	}
	at := l.in(path)
	if _, err := os.Lstat(at); err == nil {
		return nil
	}
	if err := l.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	return copyOwner(at, path)
}

func copyOwner(to, from string) error {
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return &os.PathError{Op: "stat", Path: from, Err: err}
	}
	return errors.Join(unix.Chown(to, int(st.Uid), int(st.Gid)), unix.Chmod(to, st.Mode&0o7777))
}
