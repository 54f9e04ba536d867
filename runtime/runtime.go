// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/proxy/ingress"
)

// Runtime acts on OCI command lines.
type Runtime struct {
	// Version is openshell's own, which `features` tells.
	Version string
	// Attended is what no engine asks for; nil for engines.
	Attended *Attended

	config  *config.Config
	lowPath string // of the low-level runtime
}

// Attended is what a command says that runs a container for somebody who waits
// for it.
type Attended struct {
	// Publish are the ports of a new sandbox's outer namespace that lead to its
	// workload. An engine has its own way to publish ports.
	Publish []ingress.Publication `json:"publish,omitempty"`
	// Owner is the command's process, which the container does not outlive. The
	// container's first process is openshell-init's, so that signals do to the
	// workload what they do to a command.
	Owner int `json:"owner"`
	// WithoutWorkdir: the working directory is not granted.
	WithoutWorkdir bool `json:"without_workdir,omitempty"`
}

// New returns a Runtime over the node's low-level runtime.
func New(c *config.Config) (*Runtime, error) {
	path, err := findProgram(c.Runtime)
	if err == nil && isSelf(path) {
		err = errors.New("it is openshell itself")
	}
	if err == nil && filepath.IsAbs(c.Runtime) {
		err = safefile.CheckFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("low-level runtime %q (runtime in the node's configuration): %w", c.Runtime, err)
	}
	return &Runtime{config: c, lowPath: path}, nil
}

// usualPath is where programs are looked for without PATH: podman calls a runtime
// with hardly any environment.
const usualPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func findProgram(name string) (string, error) {
	if os.Getenv("PATH") == "" {
		if err := os.Setenv("PATH", usualPath); err != nil {
			return "", err
		}
	}
	return exec.LookPath(name)
}

// isSelf reports whether a program is this one, which would replace itself for
// ever.
func isSelf(path string) bool {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Stat(path)
	return err == nil && os.SameFile(self, other)
}

// Run carries out a command line and returns the exit status. Where the
// low-level runtime does the rest, it does not return. Without a container's id
// there is nothing to confine: the low-level runtime says what is missing, or
// helps.
func (r *Runtime) Run(ctx context.Context, inv Invocation) (int, error) {
	switch {
	case inv.Command == "features":
		return r.features(ctx, inv)
	case inv.ID == "":
		return r.replace(inv.Args)
	}
	switch inv.Command {
	case "create", "run", "restore":
		return r.create(ctx, inv)
	case "start":
		return r.start(ctx, inv)
	case AdmitCommand:
		return 0, Admit(ctx, r.config, r.root(inv), inv.ID)
	case "exec":
		return r.exec(inv)
	case "delete":
		return r.delete(ctx, inv)
	}
	return r.replace(inv.Args)
}

func (r *Runtime) create(ctx context.Context, inv Invocation) (int, error) {
	// A flag that is not known may have taken the id for its value, or the
	// other way round: the container must not be another one than was prepared.
	if inv.surplus != "" {
		return 1, fmt.Errorf("%s: one container id is expected, but there are %q and %q", inv.Command, inv.ID, inv.surplus)
	}
	if inv.specFile != "" {
		return 1, fmt.Errorf("%s: --config %s: only the bundle's config.json can be confined, leave the flag out",
			inv.Command, inv.specFile)
	}
	bundle, err := filepath.Abs(inv.Bundle) // "" is the working directory
	if err != nil {
		return 1, err
	}
	spawner, err := sandbox.NewSpawner()
	if err != nil {
		return 1, err
	}
	root := r.root(inv)
	start := func(request sandbox.Request, c *config.Config) (sandbox.Ready, error) {
		if a := r.Attended; a != nil {
			request.Publish, request.Owner, request.WithoutWorkdir = a.Publish, a.Owner, a.WithoutWorkdir
		}
		return spawner.Start(request, c)
	}
	err = prepare(ctx, r.config, root, bundle, inv.ID, inv.Command, r.Attended != nil, start)
	spawner.Close()
	if err != nil {
		return 1, err
	}
	_, err = r.replace(inv.Args)
	return 1, errors.Join(err, sandbox.Close(ctx, r.config, root, inv.ID))
}

// root is the low-level runtime's state directory: --root, or its default.
func (r *Runtime) root(inv Invocation) string {
	root := inv.Root
	if root == "" {
		root = DefaultRoot(r.config)
	}
	if abs, err := filepath.Abs(root); err == nil {
		return abs
	}
	return root
}

// DefaultRoot is the state directory that the node's low-level runtime has when
// it is given no --root. It goes by what the program is, not by its file's name:
// runc's is the same for runc-1.5.
func DefaultRoot(c *config.Config) string {
	for _, name := range []string{"crun", "youki"} {
		if strings.HasPrefix(filepath.Base(c.Runtime), name) {
			return filepath.Join("/run", name)
		}
	}
	return "/run/runc"
}

// delete lets the low-level runtime delete the container, then takes down what
// is left of its sandbox. A container that it refuses to delete keeps it.
func (r *Runtime) delete(ctx context.Context, inv Invocation) (int, error) {
	cmd := exec.CommandContext(ctx, r.lowPath, inv.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, fmt.Errorf("run %s: %w", r.lowPath, err)
	}
	status := cmd.ProcessState.ExitCode()
	root := r.root(inv)
	if _, serr := os.Stat(filepath.Join(root, inv.ID)); serr == nil {
		return status, nil // it is still there
	}
	takeDown := sandbox.Close
	if inv.Force {
		takeDown = sandbox.ForceClose
	}
	err = takeDown(ctx, r.config, root, inv.ID)
	unwritten, leftover := (*sandbox.UnwrittenError)(nil), (*sandbox.LeftoverError)(nil)
	if errors.As(err, &unwritten) || errors.As(err, &leftover) {
		fmt.Fprintln(os.Stderr, "openshell: warning: "+err.Error()) // the container is gone all the same
		return status, nil
	}
	if err != nil {
		return max(status, 1), err
	}
	return status, nil
}

// replace becomes the low-level runtime, so that pid, signals, descriptors and
// exit status are its own. It returns only where that fails.
func (r *Runtime) replace(args []string) (int, error) {
	err := unix.Exec(r.lowPath, append([]string{r.lowPath}, args...), os.Environ())
	return 1, fmt.Errorf("run %s: %w", r.lowPath, err)
}
