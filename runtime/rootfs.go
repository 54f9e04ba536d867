package runtime

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cyphar/filepath-securejoin"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/sandbox"
)

// tree is a container's file system as it will be once its mounts are made,
// seen from the host beforehand.
type tree struct {
	rootfs string
	mounts []specs.Mount
}

func newTree(bundle string, spec *specs.Spec) tree {
	root := spec.Root.Path
	if !filepath.IsAbs(root) {
		root = filepath.Join(bundle, root)
	}
	return tree{rootfs: root, mounts: spec.Mounts}
}

// errUnknown says that a path lies on a file system that does not exist yet.
var errUnknown = errors.New("cannot be known before the container's mounts are made")

// host returns the host's path for a path of the container. Symbolic links are
// followed as inside the container, where they stay on one mount.
func (t tree) host(p string) (string, error) {
	p = path.Clean("/" + p)
	best := -1
	for i, m := range t.mounts {
		// Of nested mounts, and of two on one place, the later counts.
		if within(p, m.Destination) && (best < 0 || len(m.Destination) >= len(t.mounts[best].Destination)) {
			best = i
		}
	}
	if best < 0 {
		return securejoin.SecureJoin(t.rootfs, p)
	}
	m := t.mounts[best]
	if !isBind(m) {
		return "", errUnknown
	}
	rel := strings.TrimPrefix(p, path.Clean(m.Destination))
	if rel == "" {
		return m.Source, nil
	}
	return securejoin.SecureJoin(m.Source, rel)
}

// checkProgram fails where the container's program certainly does not exist,
// in runc's words. Without it, the launcher would start and only then find
// nothing, when the engine has already reported success.
func (t tree) checkProgram(p *specs.Process) error {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		err := t.executable(path.Join(rooted(name, p.Cwd)))
		if err == nil || errors.Is(err, errUnknown) {
			return nil
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
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			return filepath.SplitList(value)
		}
	}
	return nil
}

func (t tree) executable(p string) error {
	full, err := t.host(p)
	if err != nil {
		return err
	}
	info, err := os.Stat(full)
	if err != nil {
		// A link may lead onto another mount, which SecureJoin cannot see.
		if t.crossesMount(p) {
			return errUnknown
		}
		return errors.Unwrap(err)
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	if info.Mode()&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// crossesMount tells whether a component of the path is a symbolic link; then
// the target may be on any mount.
func (t tree) crossesMount(p string) bool {
	full := t.rootfs
	for part := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		full = filepath.Join(full, part)
		info, err := os.Lstat(full)
		if err != nil {
			return false
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			return len(t.mounts) > 0 && t.linksToMount(full)
		}
	}
	return false
}

func (t tree) linksToMount(link string) bool {
	target, err := os.Readlink(link)
	if err != nil {
		return true
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(strings.TrimPrefix(link, t.rootfs)), target)
	}
	return slices.ContainsFunc(t.mounts, func(m specs.Mount) bool {
		return m.Destination != "/" && within(target, m.Destination)
	})
}

// bundles returns the container's paths of the CA bundles that its image has,
// links resolved.
func (t tree) bundles() []string {
	var out []string
	for _, p := range sandbox.SystemBundles {
		full, err := securejoin.SecureJoin(t.rootfs, p)
		if err != nil {
			continue
		}
		if info, err := os.Stat(full); err != nil || !info.Mode().IsRegular() {
			continue
		}
		rel, err := filepath.Rel(t.rootfs, full)
		if resolved := "/" + rel; err == nil && !slices.Contains(out, resolved) {
			out = append(out, resolved)
		}
	}
	return out
}

// stubs returns the directories that runc will make in the root file system
// for a mount point, outermost first: what has to be removed again.
func (t tree) stubs(destination string) []string {
	if slices.ContainsFunc(t.mounts, func(m specs.Mount) bool {
		return m.Destination != "/" && within(destination, m.Destination)
	}) {
		return nil // it is made on another mount
	}
	var out []string
	for p := destination; p != "/"; p = path.Dir(p) {
		full, err := securejoin.SecureJoin(t.rootfs, p)
		if err != nil {
			return nil
		}
		if _, err := os.Lstat(full); err == nil {
			break
		}
		out = append(out, full)
	}
	slices.Reverse(out)
	return out
}
