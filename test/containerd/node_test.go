// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	versions "github.com/containerd/containerd/api/services/version/v1"
	"go.yaml.in/yaml/v4"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/machine"
)

// pair is a daemon with a low-level runtime.
type pair struct {
	containerd, runc string // versions
}

func (p pair) String() string { return "containerd-" + p.containerd + "-runc-" + p.runc }

func (p pair) old() bool { return p.containerd == "1.6.20" }

// pairs are all combinations of Debian 12's versions and the newest.
var pairs = []pair{
	{"1.6.20", "1.1.5"},
	{"1.6.20", "1.5.2"},
	{"2.4.2", "1.1.5"},
	{"2.4.2", "1.5.2"},
}

// node is a machine with a containerd and openshell's configuration.
type node struct {
	*machine.Machine
	pair
	net       *fakenet.Net
	dir       string
	namespace string // of containerd, and the cgroup below which its containers are

	config    string // the node's configuration
	stateDir  string
	runDir    string
	policyDir string

	daemon *exec.Cmd
	count  int // of containers
}

// newNode boots a node. It ends with the test.
func newNode(t *testing.T, p pair) *node {
	t.Helper()
	dir := t.TempDir()
	internet, err := fakenet.New(fakenet.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, internet.Close()) })
	n := &node{
		pair: p, net: internet, dir: dir, namespace: built.tag + "-" + strings.ReplaceAll(p.String(), ".", "-"),
		config: filepath.Join(dir, "config.yaml"), stateDir: filepath.Join(dir, "openshell"),
		runDir: filepath.Join(dir, "run"), policyDir: filepath.Join(dir, "policies"),
	}
	for _, d := range []string{n.stateDir, n.runDir, n.policyDir, n.bin(), n.cniDir()} {
		must(t, os.Mkdir(d, 0o700))
	}
	n.link(t)
	n.configure(t, n.config, nil)
	n.writeCNI(t)
	must(t, os.WriteFile(n.daemonConfig(), []byte(n.daemonSettings()), 0o600))
	n.Machine, err = machine.Boot(internet.Outer())
	must(t, err)
	t.Cleanup(func() { n.shutDown(t) })
	n.startDaemon(t)
	n.mustCtr(t, "image", "import", built.images)
	n.mustRun(t, n.ctr("--namespace", "k8s.io", "image", "import", built.images))
	return n
}

func (n *node) bin() string          { return filepath.Join(n.dir, "bin") }
func (n *node) socket() string       { return filepath.Join(n.dir, "c.sock") }
func (n *node) daemonConfig() string { return filepath.Join(n.dir, "containerd.toml") }
func (n *node) daemonLog() string    { return filepath.Join(n.dir, "containerd.log") }

// link puts this node's versions of the programs where it looks first.
func (n *node) link(t *testing.T) {
	t.Helper()
	debian := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("%s is not installed: make deps", name)
		}
		return path
	}
	programs := map[string]string{}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		programs[name] = filepath.Join(built.tools, name)
		if n.old() {
			programs[name] = debian(name)
		}
	}
	programs["runc"] = filepath.Join(built.tools, "runc")
	if n.runc == "1.1.5" {
		programs["runc"] = debian("runc")
	}
	for _, name := range []string{"openshell", "containerd-shim-openshell-v1"} {
		programs[name] = filepath.Join(built.bin, name)
	}
	for name, path := range programs {
		must(t, os.Symlink(path, filepath.Join(n.bin(), name)))
	}
	for name, version := range map[string]string{"containerd": n.containerd, "runc": n.pair.runc} {
		out, err := exec.Command(programs[name], "--version").Output()
		must(t, err)
		if !strings.Contains(string(out), version) {
			t.Fatalf("%s is not version %s: %s", programs[name], version, out)
		}
	}
}

// configure writes a configuration of openshell. settings are merged into it.
func (n *node) configure(t *testing.T, path string, settings map[string]any) {
	t.Helper()
	c := map[string]any{
		"version": 1, "state_dir": n.stateDir, "run_dir": n.runDir, "policy_dir": n.policyDir,
		"tls": map[string]any{"extra_roots": []string{n.net.CACert()}},
		"dns": map[string]any{"upstream": []string{n.net.DNS().String()}},
	}
	maps.Copy(c, settings)
	text, err := yaml.Marshal(c)
	must(t, err)
	must(t, os.WriteFile(path, text, 0o600))
}

// on is a program on the node, with the node's own programs first.
func (n *node) on(argv ...string) *exec.Cmd {
	cmd := n.Command(argv...)
	cmd.Env = []string{"PATH=" + n.bin() + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=" + n.dir,
		"OPENSHELL_CONFIG=" + n.config, "CONTAINERD_ADDRESS=" + n.socket(), "CONTAINERD_NAMESPACE=" + n.namespace}
	cmd.Dir = n.dir
	return cmd
}

// startDaemon starts containerd and waits until it answers.
func (n *node) startDaemon(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(n.daemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close()
	n.daemon = n.on("containerd", "--config", n.daemonConfig())
	n.daemon.Stdout, n.daemon.Stderr = log, log
	must(t, n.daemon.Start())
	api := versions.NewVersionClient(n.dial(t))
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := api.Version(ctx, &emptypb.Empty{}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("containerd does not answer: %v: %s", err, n.daemonTail())
		}
	}
}

// stopDaemon ends containerd, and nothing that it started.
func (n *node) stopDaemon(t *testing.T) {
	t.Helper()
	pid, err := machine.Child(n.daemon)
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	_ = n.daemon.Wait()
}

func (n *node) daemonTail() string {
	text, err := os.ReadFile(n.daemonLog())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-6000):])
}

func (n *node) shutDown(t *testing.T) {
	if t.Failed() {
		t.Logf("end of the log of containerd:\n%s", n.daemonTail())
	}
	must(t, n.Halt())
	_ = n.daemon.Wait()
	for _, group := range glob(t, "/sys/fs/cgroup/*/"+n.namespace+"*") {
		removeGroups(group)
	}
}

// removeGroups removes empty cgroups, deepest first.
func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// run runs a command to its end.
func (n *node) run(t *testing.T, cmd *exec.Cmd) machine.Outcome {
	t.Helper()
	o, err := machine.Run(cmd, 2*time.Minute)
	must(t, err)
	o.Stderr = undeprecated(o.Stderr)
	return o
}

// undeprecated takes out what ctr has to say of the machine.
func undeprecated(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "DEPRECATION") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func (n *node) mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	o := n.run(t, cmd)
	if o.Status != 0 {
		t.Fatalf("%s: %s", strings.Join(cmd.Args[6:], " "), o)
	}
	return o.Stdout
}

// ctr is containerd's own command line.
func (n *node) ctr(args ...string) *exec.Cmd { return n.on(append([]string{"ctr"}, args...)...) }

func (n *node) mustCtr(t *testing.T, args ...string) string {
	t.Helper()
	return n.mustRun(t, n.ctr(args...))
}

// openshell runs an operator's command that must succeed.
func (n *node) openshell(t *testing.T, args ...string) string {
	t.Helper()
	return n.mustRun(t, n.on(append([]string{"openshell"}, args...)...))
}

// policy writes the operator's policy of a name.
func (n *node) policy(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(n.policyDir, name+".yaml"), []byte(text), 0o600))
}
