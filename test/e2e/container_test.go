package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/test/fakenet"
)

const clientPath = "/usr/bin/client"

// container is an OCI bundle of its own, and the container made from it.
type container struct {
	w      *world
	id     string
	bundle string
	spec   *specs.Spec
	begun  bool
	log    *exec.Cmd // the command whose captured output is the container's
}

// containers counts those of all worlds.
var containers atomic.Int64

// edit changes a container's configuration before it is written.
type edit func(*specs.Spec)

// container makes a bundle. The container is deleted when the test ends.
func (w *world) container(edits ...edit) *container {
	w.t.Helper()
	// Cgroups are the whole machine's, and are called by the id.
	id := fmt.Sprintf("%s-%d", binaries.tag, containers.Add(1))
	c := &container{w: w, id: id, bundle: filepath.Join(w.dir, "bundles", id), spec: plainSpec()}
	must(w.t, os.MkdirAll(c.bundle, 0o755))
	must(w.t, cloneTree(binaries.template, c.rootfs()))
	// The image's own roots.
	must(w.t, os.MkdirAll(filepath.Join(c.rootfs(), "etc/ssl/certs"), 0o755))
	must(w.t, copyFile(w.net.CACert(), filepath.Join(c.rootfs(), "etc/ssl/certs/ca-certificates.crt")))
	for _, e := range edits {
		e(c.spec)
	}
	c.write()
	w.t.Cleanup(c.remove)
	return c
}

func (c *container) rootfs() string { return filepath.Join(c.bundle, "rootfs") }

func (c *container) configPath() string { return filepath.Join(c.bundle, "config.json") }

func (c *container) write() {
	c.w.t.Helper()
	text, err := json.MarshalIndent(c.spec, "", "  ")
	must(c.w.t, err)
	must(c.w.t, os.WriteFile(c.configPath(), text, 0o600))
}

// plainSpec is what a plain bundle has, as `runc spec` makes it, but for the
// capabilities, which are an engine's.
func plainSpec() *specs.Spec {
	return &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"/bin/sleep", "1000"},
			Env:  []string{"PATH=/bin:/usr/bin", "TERM=xterm"},
			Cwd:  "/",
			Capabilities: capabilitySets([]string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL",
				"CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}),
		},
		Hostname: "e2e",
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}
}

func capabilitySets(names []string) *specs.LinuxCapabilities {
	return &specs.LinuxCapabilities{Bounding: names, Effective: names, Permitted: names, Inheritable: names, Ambient: names}
}

// args makes the container run a program.
func args(argv ...string) edit {
	return func(s *specs.Spec) { s.Process.Args = argv }
}

// annotate sets an annotation.
func annotate(key, value string) edit {
	return func(s *specs.Spec) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		s.Annotations[key] = value
	}
}

// policy names the container's policy.
func policy(name string) edit { return annotate(annotations.KeyPolicy, name) }

// permissive makes the container's run permissive.
func permissive(s *specs.Spec) { annotate(annotations.KeyPermissive, "true")(s) }

// netnsPath makes the spec name a network namespace, as an engine does that
// prepared one.
func netnsPath(n *fakenet.Net) edit {
	return func(s *specs.Spec) {
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == specs.NetworkNamespace {
				s.Linux.Namespaces[i].Path = n.Outer()
			}
		}
	}
}

// run runs the container in the foreground to its end.
func (c *container) run() outcome {
	c.w.t.Helper()
	c.begun = true
	return c.w.oci("run", "--bundle", c.bundle, c.id)
}

// create makes the container, and must succeed.
func (c *container) create(flags ...string) {
	c.w.t.Helper()
	c.begun = true
	args := append([]string{"--root", c.w.root, "create", "--bundle", c.bundle}, flags...)
	c.log = c.w.begin(append(args, c.id)...)
	if o := c.w.finish(c.log); o.status != 0 {
		c.w.t.Fatalf("create %s: %s", c.id, o)
	}
}

// start makes the container and lets it go, and must succeed.
func (c *container) start() *container {
	c.w.t.Helper()
	c.create()
	c.letGo()
	return c
}

func (c *container) letGo() {
	c.w.t.Helper()
	if o := c.w.oci("start", c.id); o.status != 0 {
		c.w.t.Fatalf("start %s: %s", c.id, o)
	}
}

// output is what a container that was created has written so far.
func (c *container) output() string { return textOf(c.log.Stdout) }

// exec runs a program in the container.
func (c *container) exec(argv ...string) outcome {
	c.w.t.Helper()
	return c.w.oci(append([]string{"exec", c.id}, argv...)...)
}

// state is the container's status, or "gone".
func (c *container) state() string {
	c.w.t.Helper()
	o := c.w.oci("state", c.id)
	if o.status != 0 {
		return "gone"
	}
	var st specs.State
	must(c.w.t, json.Unmarshal([]byte(o.stdout), &st))
	return string(st.Status)
}

// pid is the container's first process.
func (c *container) pid() int {
	c.w.t.Helper()
	o := c.w.oci("state", c.id)
	var st specs.State
	must(c.w.t, json.Unmarshal([]byte(o.stdout), &st))
	return st.Pid
}

// delete kills and deletes the container, and must succeed.
func (c *container) delete() {
	c.w.t.Helper()
	if o := c.w.oci("delete", "--force", c.id); o.status != 0 {
		c.w.t.Fatalf("delete %s: %s", c.id, o)
	}
}

// remove deletes the container, where there is one, and waits for the sandbox's
// end.
func (c *container) remove() {
	if !c.begun {
		return
	}
	c.w.oci("delete", "--force", c.id)
	c.awaitEnd()
	if c.w.t.Failed() {
		log := c.w.auditLog(c)
		c.w.t.Logf("end of the log of %s:\n%s", c.id, log[max(0, len(log)-4000):])
	}
}

// result is a line of the client's output.
type result struct {
	OK       bool                `json:"ok"`
	Target   string              `json:"target"`
	Status   int                 `json:"status"`
	Connect  int                 `json:"connect"`
	Header   map[string][]string `json:"header"`
	Body     string              `json:"body"`
	Bytes    int64               `json:"bytes"`
	Issuer   string              `json:"issuer"`
	Answers  []string            `json:"answers"`
	Rcode    string              `json:"rcode"`
	Fields   map[string]string   `json:"fields"`
	Names    []string            `json:"names"`
	Remote   string              `json:"remote"`
	Messages []string            `json:"messages"`
	Close    int                 `json:"close"`
	Millis   int64               `json:"ms"`
	Error    string              `json:"error"`
}

// results reads the client's lines from its output.
func (o outcome) results(c *container) []result {
	c.w.t.Helper()
	var list []result
	for line := range linesOf(o.stdout) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r result
		must(c.w.t, json.Unmarshal([]byte(line), &r))
		list = append(list, r)
	}
	if len(list) == 0 {
		c.w.t.Fatalf("the client printed nothing: %s", o)
	}
	return list
}

// client executes a command of the client in the container, by the path that the
// client is usually at.
func (c *container) client(argv ...string) result {
	c.w.t.Helper()
	return c.clientAs(clientPath, argv...)
}

func (c *container) clientAs(path string, argv ...string) result {
	c.w.t.Helper()
	list := c.exec(append([]string{path}, argv...)...).results(c)
	return list[len(list)-1]
}

// sequence executes several commands of the client in one go and returns the
// result of each, in order.
func (c *container) sequence(commands ...[]string) []result {
	c.w.t.Helper()
	return c.exec(sequenceOf(commands...)...).results(c)[:len(commands)]
}

// sequenceOf is the command line of several commands of the client, each of
// which prints one line.
func sequenceOf(commands ...[]string) []string {
	argv := []string{clientPath, "seq"}
	for i, command := range commands {
		if i > 0 {
			argv = append(argv, ",")
		}
		argv = append(argv, command...)
	}
	return argv
}
