// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/machine"
)

// node is a machine with an engine and openshell's configuration.
type node struct {
	*machine.Machine
	engine engine
	net    *fakenet.Net
	dir    string

	stateDir, runDir, policyDir string
	count                       int // of containers
}

// engine is a container engine with its own way to a network.
type engine interface {
	// boot starts what the engine needs and makes the image known.
	boot(t *testing.T, n *node)
	// command runs a container of the image.
	command(n *node, o options, argv ...string) *exec.Cmd
	// remove ends a container that was left to run, and removes it.
	remove(n *node, name string) *exec.Cmd
	// log is where the engine writes what it has to say; "" for nowhere.
	log(n *node) string
}

// options are what a user asks an engine for.
type options struct {
	name        string
	network     string // as the engine calls it; "" for its default
	publish     string // HOST:CONTAINER[/udp]
	annotations []string
	detach      bool
}

func policyOf(name string) []string { return []string{"openshell.ai/policy=" + name} }

var permissively = []string{"openshell.ai/permissive=true"}

// newNode boots a machine with an engine. It ends with the test.
func newNode(t *testing.T, e engine) *node {
	t.Helper()
	dir := t.TempDir()
	internet, err := fakenet.New(fakenet.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, internet.Close()) })
	n := &node{engine: e, net: internet, dir: dir, stateDir: filepath.Join(dir, "openshell"),
		runDir: filepath.Join(dir, "openshell-run"), policyDir: filepath.Join(dir, "policies")}
	for _, d := range []string{n.stateDir, n.runDir, n.policyDir} {
		must(t, os.Mkdir(d, 0o700))
	}
	// Names are looked up where the engine says: no dns.upstream.
	text, err := yaml.Marshal(map[string]any{
		"version": 1, "state_dir": n.stateDir, "run_dir": n.runDir, "policy_dir": n.policyDir,
		"tls": map[string]any{"extra_roots": []string{internet.CACert()}},
	})
	must(t, err)
	must(t, os.WriteFile(n.config(), text, 0o600))
	resolv := filepath.Join(dir, "resolv.conf")
	must(t, os.WriteFile(resolv, []byte("nameserver "+internet.DNS().Addr().String()+"\n"), 0o644))
	n.Machine, err = machine.Boot(internet.Outer())
	must(t, err)
	t.Cleanup(func() {
		if path := e.log(n); t.Failed() && path != "" {
			text, _ := os.ReadFile(path)
			t.Logf("end of the engine's log:\n%s", text[max(0, len(text)-8000):])
		}
		must(t, n.Halt())
	})
	n.mustRun(t, n.on("mount", "--bind", resolv, "/etc/resolv.conf"))
	n.mustRun(t, n.on("sysctl", "-qw", "net.ipv4.ip_forward=1"))
	e.boot(t, n)
	return n
}

func (n *node) config() string { return filepath.Join(n.dir, "config.yaml") }

// on is a program on the node.
func (n *node) on(argv ...string) *exec.Cmd {
	cmd := n.Command(argv...)
	cmd.Env = []string{"PATH=" + strings.Join([]string{built.bin, built.tools, "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":"),
		"HOME=" + n.dir, "TMPDIR=" + n.dir, "OPENSHELL_CONFIG=" + n.config(), "XDG_RUNTIME_DIR="}
	cmd.Dir = n.dir
	return cmd
}

// run runs a command to its end.
func (n *node) run(t *testing.T, cmd *exec.Cmd) machine.Outcome {
	t.Helper()
	o, err := machine.Run(cmd, 2*time.Minute)
	must(t, err)
	return o
}

func (n *node) mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	o := n.run(t, cmd)
	if o.Status != 0 {
		t.Fatalf("%s: %s", strings.Join(cmd.Args, " "), o)
	}
	return o.Stdout
}

// openshell runs an operator's command that must succeed.
func (n *node) openshell(t *testing.T, args ...string) string {
	t.Helper()
	return n.mustRun(t, n.on(append([]string{"openshell"}, args...)...))
}

// sandboxes lists those that run.
func (n *node) sandboxes(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(n.runDir, "sandboxes", "*"))
	must(t, err)
	return list
}

// result is a line of the client's output.
type result struct {
	OK      bool              `json:"ok"`
	Status  int               `json:"status"`
	Body    string            `json:"body"`
	Answers []string          `json:"answers"`
	Rcode   string            `json:"rcode"`
	Fields  map[string]string `json:"fields"`
	Names   []string          `json:"names"`
	Remote  string            `json:"remote"`
	Error   string            `json:"error"`
}

// client runs commands of the client in a new container, separated by ",", and
// returns the result of each.
func (n *node) client(t *testing.T, o options, commands ...string) []result {
	t.Helper()
	n.count++
	o.name = fmt.Sprintf("%s-%d", built.tag, n.count)
	out := n.run(t, n.engine.command(n, o, append([]string{clientPath, "seq"}, commands...)...))
	var list []result
	for line := range linesOf(out.Stdout) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r result
		must(t, json.Unmarshal([]byte(line), &r))
		list = append(list, r)
	}
	want := 1 + strings.Count(" "+strings.Join(commands, " ")+" ", " , ")
	if len(list) < want {
		t.Fatalf("%d results of %q, not %d: %s", len(list), commands, want, out)
	}
	return list[:want]
}

// serve starts a container that goes on. Its program may not be ready yet.
func (n *node) serve(t *testing.T, o options, argv ...string) (name string) {
	t.Helper()
	n.count++
	o.name, o.detach = fmt.Sprintf("%s-%d", built.tag, n.count), true
	n.mustRun(t, n.engine.command(n, o, argv...))
	return o.name
}

func (n *node) remove(t *testing.T, name string) {
	t.Helper()
	n.mustRun(t, n.engine.remove(n, name))
}

// outside asks a port of the machine from the internet's side.
func (n *node) outside(network, addr string) (string, error) {
	var conn net.Conn
	err := n.net.DoInternet(func() (err error) {
		conn, err = net.DialTimeout(network, addr, 5*time.Second)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return "", err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	buf := make([]byte, 64)
	k, err := conn.Read(buf)
	return string(buf[:k]), err
}

// daemon starts a program that serves until the machine's end, of which it is a
// process. What it says goes to a file.
func (n *node) daemon(t *testing.T, log string, argv ...string) {
	t.Helper()
	file, err := os.Create(log)
	must(t, err)
	defer file.Close()
	daemon := n.on(argv...)
	daemon.Stdout, daemon.Stderr = file, file
	must(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
}
