package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/config"
	"openshell.ai/openshell/sandbox"
)

// Runtime acts on OCI command lines.
type Runtime struct {
	config  *config.Config
	lowPath string // of the low-level runtime
}

// New returns a Runtime over the node's low-level runtime.
func New(c *config.Config) (*Runtime, error) {
	path, err := exec.LookPath(c.Runtime)
	if err != nil {
		return nil, fmt.Errorf("low-level runtime %q (runtime in the node's configuration): %w", c.Runtime, err)
	}
	return &Runtime{config: c, lowPath: path}, nil
}

// Run carries out a command line and returns the exit status. Where the
// low-level runtime does the rest, it does not return.
func (r *Runtime) Run(ctx context.Context, inv Invocation) (int, error) {
	switch inv.Command {
	case "create", "run", "restore":
		if inv.ID != "" && !asksForHelp(inv) {
			return r.create(ctx, inv)
		}
	case "exec":
		if inv.ID != "" && !asksForHelp(inv) {
			return r.exec(inv)
		}
	case "delete":
		if inv.ID != "" && !asksForHelp(inv) {
			return r.delete(ctx, inv)
		}
	}
	return r.replace(inv.Args)
}

func asksForHelp(inv Invocation) bool {
	for _, arg := range inv.Args {
		if arg == "--help" || arg == "-h" {
			return true
		}
	}
	return false
}

func (r *Runtime) create(ctx context.Context, inv Invocation) (int, error) {
	bundle, err := filepath.Abs(inv.Bundle) // "" is the working directory
	if err != nil {
		return 1, err
	}
	root := r.root(inv)
	if err := Prepare(ctx, r.config, root, bundle, inv.ID); err != nil {
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
// it is given no --root.
func DefaultRoot(c *config.Config) string {
	return filepath.Join("/run", filepath.Base(c.Runtime))
}

// exec confines a process that joins a running container like its first one.
func (r *Runtime) exec(inv Invocation) (int, error) {
	if inv.Process == "" {
		args := inv.withPrefix(launcher, "--")
		if len(args) == len(inv.Args)+2 && inv.idAt == len(inv.Args)-1 {
			return r.replace(inv.Args) // no command: runc says what is missing
		}
		return r.replace(withoutCapabilities(args, inv.idAt))
	}
	data, err := readBounded(inv.Process, maxSpec)
	if err != nil {
		return 1, fmt.Errorf("read process: %w", err)
	}
	confined, err := confineProcess(data)
	if err != nil {
		return 1, err
	}
	path, err := inherited(confined, inv.Preserved)
	if err != nil {
		return 1, err
	}
	return r.replace(inv.withProcess(path))
}

// inherited puts content into a file in memory that the low-level runtime
// inherits and that is gone with it. The descriptor lies above those that the
// engine passes on to the container.
func inherited(content []byte, preserved int) (string, error) {
	fd, err := unix.MemfdCreate("process.json", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	f := os.NewFile(uintptr(fd), "process.json")
	if _, err := f.Write(content); err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	high, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, 100+preserved) // not close-on-exec
	if err != nil {
		return "", fmt.Errorf("hand over process: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", high), f.Close()
}

// withoutCapabilities removes exec's --cap flags that would give a dropped
// capability back. Only flags before the container's id are flags.
func withoutCapabilities(args []string, idAt int) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		name, value, inline := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		if i >= idAt || !isFlag(args[i]) || name != "cap" && name != "c" {
			out = append(out, args[i])
			continue
		}
		if !inline && i+1 < idAt {
			i++
			value = args[i]
		}
		if !dropped(value) {
			out = append(out, "--cap", value)
		}
	}
	return out
}

func dropped(capability string) bool {
	name := strings.ToUpper(capability)
	if !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	for _, d := range droppedCapabilities {
		if d == name {
			return true
		}
	}
	return false
}

// delete lets the low-level runtime delete the container, then takes down what
// is left of its sandbox. A container that it refuses to delete keeps it.
func (r *Runtime) delete(ctx context.Context, inv Invocation) (int, error) {
	cmd := exec.Command(r.lowPath, inv.Args...)
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
	if err := sandbox.Close(ctx, r.config, root, inv.ID); err != nil {
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

// Report tells of a failure where callers look: on standard error, and in the
// file of --log as runc writes it (logrus, text or JSON).
func Report(inv Invocation, err error) {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	fmt.Fprintln(os.Stderr, "openshell: "+text)
	if inv.Log == "" {
		return
	}
	f, ferr := os.OpenFile(inv.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if ferr != nil {
		fmt.Fprintf(os.Stderr, "openshell: write --log: %v\n", ferr)
		return
	}
	defer f.Close()
	fmt.Fprintln(f, logLine(inv.LogFormat, text, time.Now()))
}

func logLine(format, text string, now time.Time) string {
	stamp := now.Format(time.RFC3339)
	if format != "json" {
		return fmt.Sprintf("time=%q level=error msg=%q", stamp, text)
	}
	line, err := json.Marshal(struct {
		Level   string `json:"level"`
		Message string `json:"msg"`
		Time    string `json:"time"`
	}{"error", text, stamp})
	if err != nil { // strings always marshal
		panic(err)
	}
	return string(line)
}
