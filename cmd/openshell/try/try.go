// Package try runs a command of the host in a sandbox, with no engine and no
// image: it makes a bundle whose root is a throw-away overlay over the host's
// own root, and runs it through the same OCI commands as an engine would.
package try

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/config"
	"openshell.ai/openshell/proxy/ingress"
	"openshell.ai/openshell/runtime"
	"openshell.ai/openshell/sandbox"
)

// options are the command's flags.
type options struct {
	policy     string
	permissive bool
	ttl        time.Duration
	bind       bool
	env        []string
	publish    []string
}

// Command returns the cobra command.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "try [flags] -- COMMAND [ARG…]",
		Short: "Run a command of this host in a sandbox, without an engine or an image",
		Long: `Run a command of this host in a sandbox. It sees the host's root file system
through an overlay: what it writes is thrown away when it ends, except below the
current directory with --bind.

The exit status is the command's own; 125 where it could not be started.`,
		Example: `  openshell try --policy agent --permissive -- curl https://example.com
  openshell proposals agent
  openshell approve agent --all
  openshell try --policy agent -- curl https://example.com
  openshell try --publish 8080:80 -- ./server`,
		Args:                  cobra.MinimumNArgs(1),
		DisableFlagsInUseLine: true,
		RunE:                  func(_ *cobra.Command, args []string) error { return run(o, args) },
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&o.policy, "policy", "", "`name` of the policy (default: a new one for this run)")
	f.BoolVar(&o.permissive, "permissive", false, "let through what the policy denies, and propose rules for it")
	f.DurationVar(&o.ttl, "permissive-ttl", 0, "how long permissive mode lasts (default: the node's default_ttl)")
	f.BoolVar(&o.bind, "bind", false, "writes below the current directory are real")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`NAME=value` for the command, or NAME to pass this shell's on")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "`[ADDRESS:]HOSTPORT:PORT[/udp]`: what comes to this host's port (of 127.0.0.1 where no address is given) goes to the command's")
	return cmd
}

// StatusError carries the status to exit with: the command's own, or that of
// Err, which kept it from running.
type StatusError struct {
	Status int
	Err    error // nil where the command ran
}

// Error implements error.
func (e StatusError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("the command ended with status %d", e.Status)
	}
	return e.Err.Error()
}

func (e StatusError) Unwrap() error { return e.Err }

const (
	// failed is the status of docker run for its own failures.
	failed = 125
	// runtimeFailed is the OCI command's status for its own. A command that ran may
	// end with it too.
	runtimeFailed = 1
)

func run(o options, args []string) error {
	status, err := runSandboxed(o, args)
	if err != nil {
		return StatusError{failed, err}
	}
	if status != 0 {
		return StatusError{Status: status}
	}
	return nil
}

func runSandboxed(o options, args []string) (status int, err error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("openshell try makes namespaces and mounts: run it as root")
	}
	c, err := config.Load("")
	if err != nil {
		return 0, err
	}
	if o.policy != "" {
		if err := annotations.ValidName(o.policy); err != nil {
			return 0, fmt.Errorf("--policy: %w", err)
		}
	}
	for _, p := range o.publish {
		if _, err := ingress.ParsePublication(p); err != nil {
			return 0, fmt.Errorf("--publish: %w", err)
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	id := fmt.Sprintf("try-%d", os.Getpid())
	if o.policy == "" {
		fmt.Fprintf(os.Stderr, "openshell: policy %s (name one with --policy to keep what it learns together)\n", id)
	}
	b, err := newBundle(filepath.Join(c.RunDir, "try", id))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.remove()) }()
	if err := b.write(newSpec(c, o, b, cwd, args)); err != nil {
		return 0, err
	}
	status, err = runBundle(b.dir, id, o.publish)
	// The run is over when what it taught is on disk.
	cerr := sandbox.Close(context.Background(), c, runtime.DefaultRoot(c), id)
	if unwritten := (*sandbox.UnwrittenError)(nil); errors.As(cerr, &unwritten) {
		fmt.Fprintln(os.Stderr, "openshell: warning: "+cerr.Error())
		cerr = nil
	}
	return status, errors.Join(err, cerr)
}

// publishVariable tells the OCI command, whose arguments are runc's, what to
// publish.
const publishVariable = "OPENSHELL_TRY_PUBLISH"

// Published returns what the command that called this one wants published. No
// other process is told.
func Published() (list []ingress.Publication, err error) {
	text := os.Getenv(publishVariable)
	if text == "" {
		return nil, nil
	}
	for _, s := range strings.Split(text, ",") {
		p, err := ingress.ParsePublication(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", publishVariable, err)
		}
		list = append(list, p)
	}
	return list, os.Unsetenv(publishVariable)
}

// runBundle runs a bundle through this program's own OCI command.
func runBundle(dir, id string, publish []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	begun := filepath.Join(dir, "pid")
	cmd := exec.Command(self, "run", "--bundle", dir, "--pid-file", begun, id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if len(publish) > 0 {
		cmd.Env = append(os.Environ(), publishVariable+"="+strings.Join(publish, ","))
	}
	// The runtime forwards signals to the workload; this process only waits.
	signal.Ignore(unix.SIGINT, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stop := forward(cmd.Process)
	defer stop()
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	status := cmd.ProcessState.ExitCode()
	if _, err := os.Lstat(begun); err != nil && status == runtimeFailed {
		return failed, nil // and it has said why
	}
	return status, nil
}

// forward passes on the signals that ask this process to end.
func forward(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	go func() {
		for s := range signals {
			_ = p.Signal(s)
		}
	}()
	return func() { signal.Stop(signals); close(signals) }
}
