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

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/sandbox"
)

// tree is a container's file system as it will be once its mounts are made,
// seen from the host beforehand.
type tree struct {
	rootfs string
	mounts []mountPoint // in the order in which they are made
}

// mountPoint is a mount at its place in the container, links resolved.
type mountPoint struct {
	at     string
	known  bool   // at is certain
	source string // on the host; "" where the file system does not exist yet
}

func newTree(bundle string, spec *specs.Spec) tree {
	t := tree{rootfs: absolute(bundle, spec.Root.Path)}
	for _, m := range spec.Mounts {
		// Where it cannot be told (a link in a file system to come), the mount
		// is taken by its name.
		at, err := t.resolve(m.Destination)
		if err != nil {
			at = path.Clean("/" + m.Destination)
		}
		point := mountPoint{at: at, known: err == nil}
		if isBind(m) {
			point.source = absolute(bundle, m.Source)
			if resolved, err := filepath.EvalSymlinks(point.source); err == nil {
				point.source = resolved
			}
		}
		t.mounts = append(t.mounts, point)
	}
	return t
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// errUnknown says that a path lies on a file system that does not exist yet.
var errUnknown = errors.New("cannot be known before the container's mounts are made")

// host returns the host's path for a path of the container, with no symbolic
// link in it. What is missing is named as if it were there.
func (t tree) host(p string) (string, error) {
	resolved, err := t.resolve(p)
	if err != nil {
		return "", err
	}
	return t.locate(resolved)
}

// maxLinks is how many symbolic links the kernel follows (path_resolution(7)).
const maxLinks = 40

// resolve follows the symbolic links of a path as the kernel will inside the
// container, from mount to mount.
func (t tree) resolve(p string) (string, error) {
	at, rest := "/", p
	for links := 0; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		next := path.Join(at, part) // handles ".", ".." and ""
		full, err := t.locate(next)
		if err != nil {
			return "", err
		}
		info, err := os.Lstat(full)
		if err != nil {
			return path.Join(next, rest), nil
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(full)
		if err != nil {
			return "", err
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

// locate returns the host's path for a path that has no symbolic links.
func (t tree) locate(p string) (string, error) {
	for _, m := range slices.Backward(t.mounts) { // a later mount hides an earlier one
		if !within(p, m.at) {
			continue
		}
		if m.source == "" {
			return "", errUnknown
		}
		return filepath.Join(m.source, strings.TrimPrefix(p, m.at)), nil
	}
	return filepath.Join(t.rootfs, p), nil
}

// isMount tells whether something is mounted at exactly this path.
func (t tree) isMount(p string) bool {
	resolved, err := t.resolve(p)
	return err == nil && slices.ContainsFunc(t.mounts, func(m mountPoint) bool { return m.at == resolved })
}

// checkRequired fails where a path that the policy insists on certainly does not
// exist. openshell-init would refuse to start the program then, but by that time
// the engine has reported success.
func (t tree) checkRequired(paths []string) error {
	for _, p := range paths {
		full, err := t.host(p)
		if errors.Is(err, errUnknown) {
			continue
		}
		if err == nil {
			_, err = os.Stat(full)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("filesystem_policy: %s does not exist in the container, and landlock.compatibility is hard_requirement", p)
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
		return errors.Unwrap(err) // without the host's path
	}
	if info.IsDir() {
		return unix.EISDIR
	}
	if info.Mode()&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

// bundles returns the container's paths of the CA bundles that its image has,
// links resolved.
func (t tree) bundles() []string {
	image := tree{rootfs: t.rootfs}
	var out []string
	for _, p := range sandbox.SystemBundles {
		resolved, err := image.resolve(p)
		if err != nil || slices.Contains(out, resolved) {
			continue
		}
		if info, err := os.Lstat(filepath.Join(t.rootfs, resolved)); err == nil && info.Mode().IsRegular() {
			out = append(out, resolved)
		}
	}
	return out
}

// stubs returns the directories that the low-level runtime will make in the
// root file system for a mount point, outermost first: what has to be removed
// again.
func (t tree) stubs(destination string) []string {
	resolved, err := t.resolve(destination)
	if err != nil || slices.ContainsFunc(t.mounts, func(m mountPoint) bool { return m.at != "/" && within(resolved, m.at) }) {
		return nil // it is made on another mount
	}
	var out []string
	for p := resolved; p != "/"; p = path.Dir(p) {
		full := filepath.Join(t.rootfs, p)
		if _, err := os.Lstat(full); err == nil {
			break
		}
		out = append(out, full)
	}
	slices.Reverse(out)
	return out
}
