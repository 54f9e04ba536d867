// SPDX-License-Identifier: Apache-2.0

// Package try runs a command of the host in a sandbox, with no engine and no
// image: it makes a bundle whose root is a throw-away overlay over the host's
// own root, and runs it through the same OCI commands as an engine would.
package try

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/internal/validname"
	"openshell.ai/openshell/proxy/ingress"
	"openshell.ai/openshell/runtime"
)

// options are the command's flags.
type options struct {
	policy     string
	permissive bool
	ttl        time.Duration
	bind       bool
	env        []string
	envAll     bool
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
current directory with --bind. It has a /tmp, /var/tmp and /run of its own, and
does not see keys and passwords in /etc, what is there not for everybody to
read, other users' homes, and the data of container engines.

Of the environment it gets ` + strings.Join(passed, ", ") + `;
more with --env, and everything but OPENSHELL_* with --env-all.

Signals do to the command what they do to it without a sandbox. The exit status is
the command's own, 128+N where signal N ended it, and 125 where it could not be
started.`,
		Example: `  openshell try --policy agent --permissive -e API_TOKEN -- curl -H "Authorization: Bearer $API_TOKEN" https://example.com
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
	f.StringArrayVarP(&o.env, "env", "e", nil, "`NAME[=VALUE]` for the command: without a value, the one of this shell")
	f.BoolVar(&o.envAll, "env-all", false, "pass the whole environment of this shell on, with what is secret in it")
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
		if err := validname.Check(o.policy); err != nil {
			return 0, fmt.Errorf("--policy: %w", err)
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	id, err := newID(c, rand.Text)
	if err != nil {
		return 0, err
	}
	if o.policy == "" {
		defer func() {
			fmt.Fprintf(os.Stderr, "openshell: this run's policy is %[1]s: see openshell proposals %[1]s, and use it again with --policy %[1]s\n", id)
		}()
	}
	policies, err := policystore.Load(c, cmp.Or(o.policy, id))
	if err != nil {
		return 0, err
	}
	caught := catchSignals() // from here on there is something to clean up
	v, err := newView(c, cwd, o.bind, policies.Effective.FilesystemRules())
	if err != nil {
		return 0, err
	}
	b, err := newBundle(filepath.Join(c.RunDir, "try", id), v)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, b.remove()) }()
	if err := b.write(newSpec(o, b, v, args)); err != nil {
		return 0, err
	}
	a := runtime.Attended{Owner: os.Getpid(), WithoutWorkdir: v.withoutWorkdir}
	for _, p := range o.publish {
		publication, err := ingress.ParsePublication(p)
		if err != nil {
			return 0, fmt.Errorf("--publish: %w", err)
		}
		a.Publish = append(a.Publish, publication)
	}
	status, err = runBundle(b.dir, id, a, caught)
	// The run is over when what it taught is on disk.
	cerr := sandbox.Close(context.Background(), c, runtime.DefaultRoot(c), id)
	if unwritten := (*sandbox.UnwrittenError)(nil); errors.As(cerr, &unwritten) {
		fmt.Fprintln(os.Stderr, "openshell: warning: "+cerr.Error())
		cerr = nil
	}
	return status, errors.Join(err, cerr)
}

// newID returns a name that no run and no policy of this node has had, as far as
// anything is left of them: what was approved for another run is not this one's.
func newID(c *config.Config, random func() string) (string, error) {
	store := state.Open(c.StateDir)
	for range 100 {
		id := "try-" + strings.ToLower(random()[:6])
		sandboxID := sandbox.IDFor(runtime.DefaultRoot(c), id)
		used := false
		for _, path := range []string{
			store.PolicyDir(id), store.SandboxDir(sandboxID), filepath.Join(c.PolicyDir, id+".yaml"), filepath.Join(c.RunDir,
				"try", id),
		} {
			_, err := os.Lstat(path)
			used = used || !errors.Is(err, fs.ErrNotExist)
		}
		if !used {
			return id, nil
		}
	}
	return "", errors.New("no name is free for this run: name its policy with --policy, and look at state_dir")
}

// attendedVariable tells the OCI command, whose arguments are runc's, what it is
// run for.
const attendedVariable = "OPENSHELL_TRY"

// Attended returns what the command that called this one wants, or nil where that
// is not this package's. No other process is told.
func Attended() (*runtime.Attended, error) {
	text, ok := os.LookupEnv(attendedVariable)
	if !ok {
		return nil, nil
	}
	var a runtime.Attended
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return nil, fmt.Errorf("%s: %w", attendedVariable, err)
	}
	return &a, os.Unsetenv(attendedVariable)
}

// runBundle runs a bundle through this program's own OCI command.
func runBundle(dir, id string, a runtime.Attended, caught <-chan os.Signal) (int, error) {
	begun := filepath.Join(dir, "pid")
	cmd, err := ociCommand("run", "--bundle", dir, "--pid-file", begun, id)
	if err != nil {
		return 0, err
	}
	attended, err := json.Marshal(a)
	if err != nil {
		return 0, err
	}
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	cmd.Env = append(os.Environ(), attendedVariable+"="+string(attended))
	// It ends with this process, and the container does by way of the supervisor.
	// The kernel goes by the thread that starts it.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go forward(caught, cmd.Process) // until this process's end
	err = cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), deleteContainer(id) // it had no time to
	}
	status := cmd.ProcessState.ExitCode()
	if _, err := os.Lstat(begun); err != nil && status == runtimeFailed {
		return failed, nil // and it has said why
	}
	return status, nil
}

// ociCommand is an OCI command of this program's.
func ociCommand(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// deleteContainer removes what is left of a container, if anything is.
func deleteContainer(id string) error {
	cmd, err := ociCommand("delete", "--force", id)
	if err != nil {
		return err
	}
	return cmd.Run()
}

// catchSignals takes the signals that ask this process to end, which the command is
// to be asked instead.
func catchSignals() chan os.Signal {
	caught := make(chan os.Signal, 4)
	signal.Notify(caught, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	return caught
}

// forward passes them on, also those that came before. Those of a terminal's keys
// have reached the OCI command already where both are in its foreground; a terminal
// that is the command's own sends none to either.
func forward(caught <-chan os.Signal, p *os.Process) {
	for s := range caught {
		if key := s == unix.SIGINT || s == unix.SIGQUIT; !key || isTerminal() || !inForeground() {
			_ = p.Signal(s)
		}
	}
}

// isTerminal reports whether the command gets a terminal of its own.
func isTerminal() bool {
	return term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stdout.Fd()))
}

// inForeground reports whether this process is in the foreground of a terminal.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
