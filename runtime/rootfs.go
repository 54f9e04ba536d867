// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
)

// tree is a container's file system as it will be once its mounts are made,
// seen from the host beforehand.
type tree struct {
	volume              // of the root file system
	mounts []mountPoint // in the order in which they are made
}

// volume is something that a container's paths lead to, open. root is nil where it
// does not exist yet, or cannot be opened.
type volume struct {
	location rootfs.Location
	root     *rootfs.Root
}

// mountPoint is a mount at its place in the container, links resolved. What is
// mounted is its source on the host; a file system to come has none.
type mountPoint struct {
	volume
	at    string
	known bool   // at is certain
	named string // the place as the spec has it
}

// newTree opens a container's root file system and the sources of its mounts. It
// has to be closed.
func newTree(bundle string, spec *specs.Spec) (tree, error) {
	return treeAt(rootfs.At(absolute(bundle, spec.Root.Path)), bundle, spec.Mounts)
}

func treeAt(root rootfs.Location, bundle string, mounts []specs.Mount) (tree, error) {
	t := tree{volume: volume{location: root}}
	var err error
	if t.root, err = t.location.Open(); err != nil {
		return tree{}, fmt.Errorf("root.path: %w", err)
	}
	for _, m := range mounts {
		point := mountPoint{named: path.Clean("/" + m.Destination)}
		// Where it cannot be told (a link in a file system to come), the mount
		// is taken by its name.
		if point.at, err = t.resolve(m.Destination); err != nil {
			point.at = point.named
		}
		point.known = err == nil
		if isBind(m) {
			point.location = rootfs.At(absolute(bundle, m.Source))
			point.root, _ = point.location.Open() // or else the low-level runtime says why
		}
		t.mounts = append(t.mounts, point)
	}
	return t, nil
}

func (t tree) close() {
	t.root.Close()
	for _, m := range t.mounts {
		m.root.Close()
	}
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// errUnknown says that a path lies on a file system that does not exist yet.
var errUnknown = errors.New("cannot be known before the container's mounts are made")

// resolve follows the symbolic links of a path as the kernel will inside the
// container, from mount to mount. What is missing is named as if it were there.
func (t tree) resolve(p string) (string, error) {
	if p == path.Clean("/"+p) && !t.mounted(p) { // most have no links: one look tells
		file, err := t.root.Lstat(p)
		if missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR); missing || err == nil &&
			!file.IsLink() {
			return p, nil
		}
	}
	return rootfs.Resolve(p, func(p string) (string, error) {
		at, rel, err := t.locate(p)
		if err != nil {
			return "", err
		}
		return at.root.Readlink(rel)
	})
}

// locate returns where a path that has no symbolic links is, and its path there.
func (t tree) locate(p string) (volume, string, error) {
	for _, m := range slices.Backward(t.mounts) { // a later mount hides an earlier one
		if !abspath.Within(p, m.at) {
			continue
		}
		if m.root == nil {
			return volume{}, "", errUnknown
		}
		return m.volume, strings.TrimPrefix(p, m.at), nil
	}
	return t.volume, p, nil
}

// find returns where a path leads to, and its path there without links.
func (t tree) find(p string) (volume, string, error) {
	resolved, err := t.resolve(p)
	if err != nil {
		return volume{}, "", err
	}
	return t.locate(resolved)
}

// stat tells what a path leads to.
func (t tree) stat(p string) (rootfs.File, error) {
	at, rel, err := t.find(p)
	if err != nil {
		return rootfs.File{}, err
	}
	return at.root.Lstat(rel)
}

// engineFile returns what the engine mounts at exactly this path. It goes by the
// name, not by where links lead: those are the image's, and could lead to a volume
// that a workload has written to.
func (t tree) engineFile(p string) (mountPoint, bool) {
	for i, m := range slices.Backward(t.mounts) {
		if m.named == p {
			hidden := slices.ContainsFunc(t.mounts[i+1:], func(later mountPoint) bool { return abspath.Within(m.at, later.at) })
			return m, !hidden
		}
	}
	return mountPoint{}, false
}

// checkRequired fails where a path that the policy insists on certainly does not
// exist. openshell-init would refuse to start the program then, but by that time
// the engine has reported success.
func (t tree) checkRequired(paths []string) error {
	for _, p := range paths {
		if _, err := t.stat(p); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("filesystem_policy: %s does not exist in the container, "+
				"and landlock.compatibility is hard_requirement", p)
		}
	}
	return nil
}

// checkProgram fails where the container's program certainly does not exist,
// in runc's words. Without it, the launcher would start and only then find
// nothing, when the engine has already reported success.
func (t tree) checkProgram(p *specs.Process) error {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		err := t.executable(rooted(name, p.Cwd))
		switch {
		case err == nil || errors.Is(err, errUnknown):
			return nil
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EISDIR):
			return fmt.Errorf("unable to start container process: exec: %q: %w", name, err)
		}
		return fmt.Errorf("unable to start container process: exec: %q: stat %s: %w", name, name, err)
	}
	for _, dir := range searchPath(p.Env) {
		if err := t.executable(path.Join(rooted(dir, p.Cwd), name)); err == nil || errors.Is(err, errUnknown) {
			return nil
		}
	}
	return fmt.Errorf("unable to start container process: exec: %q: executable file not found in $PATH", name)
}

func rooted(p, cwd string) string {
	if path.IsAbs(p) {
		return p
	}
	return path.Join("/", cwd, p)
}

func searchPath(env []string) []string {
	value, _ := lookup(env, "PATH")
	return filepath.SplitList(value)
}

func (t tree) executable(p string) error {
	file, err := t.stat(p)
	if err != nil {
		return err
	}
	if file.IsDir() {
		return unix.EISDIR
	}
	if file.Mode&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// mountPoints returns the directories in the root file system, links resolved, that
// are to be mounted on and that no other mount has.
func (t tree) mountPoints(destinations ...string) (paths []string, err error) {
	for _, p := range destinations {
		resolved, err := t.resolve(p)
		if errors.Is(err, errUnknown) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("mount point %s: %w", p, err)
		}
		if !t.mounted(resolved) {
			paths = append(paths, resolved)
		}
	}
	return paths, nil
}

// mounted reports whether a path without links is in one of the mounts.
func (t tree) mounted(p string) bool {
	return slices.ContainsFunc(t.mounts, func(m mountPoint) bool { return abspath.Within(p, m.at) })
}

// mountable returns where the sandbox's CA can be mounted, and the stores that can
// be covered: a root file system that cannot be written to has only the mount points
// that it came with. In a mount the low-level runtime makes them.
func (t tree) mountable(stores []sandbox.TrustStore) (trustDir string, _ []sandbox.TrustStore) {
	missing := func(p string) bool {
		resolved, err := t.resolve(p)
		if err != nil || t.mounted(resolved) {
			return false
		}
		_, err = t.root.Lstat(resolved)
		return errors.Is(err, fs.ErrNotExist)
	}
	trustDir = sandbox.TrustDir
	if missing(trustDir) {
		trustDir = sandbox.ReadOnlyTrustDir
	}
	return trustDir, slices.DeleteFunc(stores, func(s sandbox.TrustStore) bool { return missing(s.Target) })
}
