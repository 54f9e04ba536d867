// SPDX-License-Identifier: Apache-2.0

package node

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

	"github.com/google/nftables"
	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/test/fakenet"
)

// Patience is how long a test waits for what should happen at once on an idle
// machine.
const Patience = 30 * time.Second

// World is one test's node: a fake internet, a node configuration with its own
// directories, and the containers on it.
type World struct {
	T   *testing.T
	Net *fakenet.Net
	Dir string

	config    string // the node's configuration
	settings  map[string]any
	StateDir  string
	RunDir    string
	policyDir string
	Root      string // the low-level runtime's --root

	elsewhere bool // openshell runs in another network, see Apart
	plain     bool // without openshell, see Plain
}

// New makes a node. settings are merged into its configuration.
func New(t *testing.T, settings ...map[string]any) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{
		T: t, Net: borrowNet(t), Dir: dir,
		config:   filepath.Join(dir, "config.yaml"),
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"),
		policyDir: filepath.Join(dir, "policies"), Root: filepath.Join(dir, "runc"),
	}
	for _, d := range []string{w.StateDir, w.RunDir, w.policyDir, w.Root,
		// Made by the first sandbox, and to stay.
		filepath.Join(w.StateDir, "sandboxes"), filepath.Join(w.RunDir, "sandboxes")} {
		Must(t, os.Mkdir(d, 0o700))
	}
	config := map[string]any{
		"version": 1, "state_dir": w.StateDir, "run_dir": w.RunDir, "policy_dir": w.policyDir,
		"tls": map[string]any{"extra_roots": []string{w.Net.CACert()}},
		"dns": map[string]any{"upstream": []string{w.Net.DNS().String()}},
	}
	w.settings = config
	w.Configure(settings...)
	return w
}

// Configure merges settings into the node's configuration, for what starts from now on.
func (w *World) Configure(settings ...map[string]any) {
	w.T.Helper()
	for _, s := range settings {
		maps.Copy(w.settings, s)
	}
	text, err := yaml.Marshal(w.settings)
	Must(w.T, err)
	Must(w.T, os.WriteFile(w.config, text, 0o600))
}

// Apart makes openshell run in another network than the one that the fake
// internet is reached from, as where an engine prepares a namespace for each
// container: the fake internet is then only for those that name it.
func (w *World) Apart() *World {
	w.elsewhere = true
	return w
}

// Plain makes the node's containers those of the low-level runtime alone, in the
// network of the fake internet: what happens there happens without a sandbox.
func (w *World) Plain() *World {
	w.plain = true
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
		Must(t, err)
	}
	t.Cleanup(func() {
		if left := Tables(t, n.Do); len(left) > 0 {
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

// Policy writes the operator's policy of a name.
func (w *World) Policy(name, text string) {
	w.T.Helper()
	Must(w.T, os.WriteFile(filepath.Join(w.policyDir, name+".yaml"), []byte(text), 0o600))
}

// Outcome is what a command that ended left.
type Outcome struct {
	Stdout, Stderr string
	Status         int // -1 for a signal
}

func (o Outcome) String() string {
	return fmt.Sprintf("exit status %d\nstdout: %s\nstderr: %s", o.Status, o.Stdout, o.Stderr)
}

// OpenShell runs a command line to its end, in the network that stands for the
// host's.
func (w *World) OpenShell(args ...string) Outcome {
	w.T.Helper()
	return w.Finish(w.Begin(args...))
}

// OCI is openshell with the low-level runtime's state in the world's own
// directory.
func (w *World) OCI(args ...string) Outcome {
	w.T.Helper()
	return w.OpenShell(append([]string{"--root", w.Root}, args...)...)
}

// Operate runs an operator's command that must succeed.
func (w *World) Operate(args ...string) string {
	w.T.Helper()
	o := w.OpenShell(args...)
	if o.Status != 0 {
		w.T.Fatalf("openshell %s: %s", strings.Join(args, " "), o)
	}
	return o.Stdout
}

// Begin starts a command line. Its output goes to files: a pipe would be kept
// open by a container that goes on.
func (w *World) Begin(args ...string) *exec.Cmd {
	w.T.Helper()
	cmd := w.Command(args...)
	w.Launch(cmd)
	return cmd
}

func (w *World) Command(args ...string) *exec.Cmd {
	w.T.Helper()
	if w.plain {
		return w.program(lowLevel, args...)
	}
	return w.program(binaries.openshell, args...)
}

// lowLevel is the low-level runtime.
const lowLevel = "runc"

func (w *World) program(name string, args ...string) *exec.Cmd {
	w.T.Helper()
	cmd := exec.Command(name, args...)
	cmd.Args[0] = cmd.Path // which the program's messages have
	cmd.Dir = w.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/root", "OPENSHELL_CONFIG=" + w.config}
	cmd.Stdout, cmd.Stderr = w.capture("stdout"), w.capture("stderr")
	return cmd
}

func (w *World) capture(name string) *os.File {
	w.T.Helper()
	f, err := os.CreateTemp(w.Dir, name+"-")
	Must(w.T, err)
	return f
}

// Launch starts a command in the network that stands for the host's.
func (w *World) Launch(cmd *exec.Cmd) {
	w.T.Helper()
	network := w.Net.Do
	if w.elsewhere {
		network = Here
	}
	err := network(cmd.Start)
	for _, captured := range []any{cmd.Stdout, cmd.Stderr} {
		if f, ok := captured.(*os.File); ok {
			f.Close() // the command has its own
		}
	}
	Must(w.T, err)
}

// Finish waits for a command and reads what it wrote.
func (w *World) Finish(cmd *exec.Cmd) Outcome {
	w.T.Helper()
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		w.T.Errorf("%s did not end", strings.Join(cmd.Args, " "))
	}
	if status := new(exec.ExitError); err != nil && !errors.As(err, &status) {
		w.T.Fatal(err)
	}
	return Outcome{TextOf(cmd.Stdout), TextOf(cmd.Stderr), cmd.ProcessState.ExitCode()}
}

// Runc runs the low-level runtime itself.
func (w *World) Runc(args ...string) Outcome {
	w.T.Helper()
	cmd := w.program(lowLevel, args...)
	w.Launch(cmd)
	return w.Finish(cmd)
}

// TryDir is where commands are tried.
func (w *World) TryDir() string { return filepath.Join(w.Dir, "work") }

// Try runs a command of the host in a sandbox.
func (w *World) Try(args ...string) Outcome {
	w.T.Helper()
	cmd := w.Command(append([]string{"try"}, args...)...)
	cmd.Dir = w.TryDir()
	w.Launch(cmd)
	return w.Finish(cmd)
}

func TextOf(captured any) string {
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

// Eventually waits until ok holds.
func Eventually(t *testing.T, wait time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", wait, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Lines yields the lines of a text without their ends.
func Lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}

// Tables lists the nftables tables of the namespace that do runs in.
func Tables(t *testing.T, do func(func() error) error) []string {
	t.Helper()
	var names []string
	Must(t, do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		list, err := conn.ListTables()
		for _, table := range list {
			names = append(names, table.Name)
		}
		return err
	}))
	return names
}

func Here(f func() error) error { return f() }
