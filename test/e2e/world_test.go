package e2e_test

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/test/fakenet"
)

// patience is how long a test waits for what should happen at once on an idle
// machine.
const patience = 30 * time.Second

// world is one test's node: a fake internet, a node configuration with its own
// directories, and the containers on it.
type world struct {
	t   *testing.T
	net *fakenet.Net
	dir string

	config    string // the node's configuration
	stateDir  string
	runDir    string
	policyDir string
	root      string // the low-level runtime's --root

	elsewhere bool // openshell runs in another network, see apart
}

// newWorld makes a node. settings are merged into its configuration.
func newWorld(t *testing.T, settings ...map[string]any) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, net: borrowNet(t), dir: dir,
		config:   filepath.Join(dir, "config.yaml"),
		stateDir: filepath.Join(dir, "state"), runDir: filepath.Join(dir, "run"),
		policyDir: filepath.Join(dir, "policies"), root: filepath.Join(dir, "runc"),
	}
	for _, d := range []string{w.stateDir, w.runDir, w.policyDir, w.root,
		// Made by the first sandbox, and to stay.
		filepath.Join(w.stateDir, "sandboxes"), filepath.Join(w.runDir, "sandboxes")} {
		must(t, os.Mkdir(d, 0o700))
	}
	config := map[string]any{
		"version": 1, "state_dir": w.stateDir, "run_dir": w.runDir, "policy_dir": w.policyDir,
		"tls": map[string]any{"extra_roots": []string{w.net.CACert()}},
		"dns": map[string]any{"upstream": []string{w.net.DNS().String()}},
	}
	for _, s := range settings {
		maps.Copy(config, s)
	}
	text, err := yaml.Marshal(config)
	must(t, err)
	must(t, os.WriteFile(w.config, text, 0o600))
	return w
}

// nets keeps fake internets for the next test: they are forgetful, and cost more
// to make than a container.
var nets struct {
	sync.Mutex
	free []*fakenet.Net
}

func borrowNet(t *testing.T) *fakenet.Net {
	t.Helper()
	nets.Lock()
	defer nets.Unlock()
	var n *fakenet.Net
	if last := len(nets.free) - 1; last >= 0 {
		n, nets.free = nets.free[last], nets.free[:last]
	} else {
		var err error
		n, err = fakenet.New(fakenet.Options{})
		must(t, err)
	}
	t.Cleanup(func() {
		if left := tables(t, n.Do); len(left) > 0 {
			t.Errorf("rules were left in the outer namespace: %q", left)
		}
		n.Reset()
		nets.Lock()
		defer nets.Unlock()
		nets.free = append(nets.free, n)
	})
	return n
}

func closeNets() error {
	var errs []error
	for _, n := range nets.free {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// policy writes the operator's policy of a name.
func (w *world) policy(name, text string) {
	w.t.Helper()
	must(w.t, os.WriteFile(w.policyFile(name), []byte(text), 0o600))
}

func (w *world) policyFile(name string) string { return filepath.Join(w.policyDir, name+".yaml") }

// outcome is what a command that ended left.
type outcome struct {
	stdout, stderr string
	status         int // -1 for a signal
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", o.status, o.stdout, o.stderr)
}

// openshell runs a command line to its end, in the network that stands for the
// host's.
func (w *world) openshell(args ...string) outcome {
	w.t.Helper()
	return w.finish(w.begin(args...))
}

// oci is openshell with the low-level runtime's state in the world's own
// directory.
func (w *world) oci(args ...string) outcome {
	w.t.Helper()
	return w.openshell(append([]string{"--root", w.root}, args...)...)
}

// operate runs an operator's command that must succeed.
func (w *world) operate(args ...string) string {
	w.t.Helper()
	o := w.openshell(args...)
	if o.status != 0 {
		w.t.Fatalf("openshell %s: %s", strings.Join(args, " "), o)
	}
	return o.stdout
}

// begin starts a command line. Its output goes to files: a pipe would be kept
// open by a container that goes on.
func (w *world) begin(args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := w.command(args...)
	w.launch(cmd)
	return cmd
}

func (w *world) command(args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(binaries.openshell, args...)
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "OPENSHELL_CONFIG=" + w.config}
	cmd.Stdout, cmd.Stderr = w.capture("stdout"), w.capture("stderr")
	return cmd
}

func (w *world) capture(name string) *os.File {
	w.t.Helper()
	f, err := os.CreateTemp(w.dir, name+"-")
	must(w.t, err)
	return f
}

// launch starts a command in the network that stands for the host's.
func (w *world) launch(cmd *exec.Cmd) {
	w.t.Helper()
	network := w.net.Do
	if w.elsewhere {
		network = here
	}
	err := network(cmd.Start)
	for _, captured := range []any{cmd.Stdout, cmd.Stderr} {
		if f, ok := captured.(*os.File); ok {
			f.Close() // the command has its own
		}
	}
	must(w.t, err)
}

// finish waits for a command and reads what it wrote.
func (w *world) finish(cmd *exec.Cmd) outcome {
	w.t.Helper()
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		w.t.Errorf("%s did not end", strings.Join(cmd.Args, " "))
	}
	if status := new(exec.ExitError); err != nil && !errors.As(err, &status) {
		w.t.Fatal(err)
	}
	return outcome{textOf(cmd.Stdout), textOf(cmd.Stderr), cmd.ProcessState.ExitCode()}
}

func textOf(captured any) string {
	f, ok := captured.(*os.File)
	if !ok {
		return ""
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// eventually waits until ok holds.
func eventually(t *testing.T, wait time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", wait, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// linesOf yields the lines of a text without their ends.
func linesOf(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}
