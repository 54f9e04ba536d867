package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
)

// badInput is a container that must not be made.
type badInput struct {
	name     string
	want     []string // in the one line that says why
	settings map[string]any
	edits    []edit
	id       string
	prepare  func(*container) // after the bundle is written
}

func namespaces(change func([]specs.LinuxNamespace) []specs.LinuxNamespace) edit {
	return func(s *specs.Spec) { s.Linux.Namespaces = change(s.Linux.Namespaces) }
}

// namespace replaces a namespace by the one that a path names; "" is none.
func namespace(kind specs.LinuxNamespaceType, path string) edit {
	return namespaces(func(list []specs.LinuxNamespace) []specs.LinuxNamespace {
		list = slices.DeleteFunc(list, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		if path != "" {
			list = append(list, specs.LinuxNamespace{Type: kind, Path: path})
		}
		return list
	})
}

// bindMount mounts something of the host's.
func bindMount(source string) func(*container) {
	return bindMountOf(func(*world) string { return source })
}

func bindMountOf(source func(*world) string) func(*container) {
	return func(c *container) {
		c.spec.Mounts = append(c.spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: source(c.w), Options: []string{"rbind"}})
		c.write()
	}
}

func overwrite(text string) func(*container) {
	return func(c *container) { must(c.w.t, os.WriteFile(c.configPath(), []byte(text), 0o600)) }
}

var badInputs = []badInput{
	{name: "permissive value", want: []string{"openshell.ai/permissive", `"true" or "false"`},
		edits: []edit{annotate(annotations.KeyPermissive, "maybe")}},
	{name: "TTL value", want: []string{"openshell.ai/permissive-ttl", "duration"},
		edits: []edit{permissive, annotate(annotations.KeyPermissiveTTL, "soon")}},
	{name: "on-expiry value", want: []string{"openshell.ai/permissive-on-expiry", `"stop"`},
		edits: []edit{permissive, annotate(annotations.KeyPermissiveOnExpiry, "explode")}},
	{name: "TTL without permissive", want: []string{"openshell.ai/permissive-ttl", "openshell.ai/permissive=true"},
		edits: []edit{annotate(annotations.KeyPermissiveTTL, "1h")}},
	{name: "misspelt key", want: []string{"openshell.ai/permisive", "did you mean openshell.ai/permissive?"},
		edits: []edit{annotate("openshell.ai/permisive", "true")}},
	{name: "unknown key", want: []string{"openshell.ai/frobnicate", "openshell.ai/policy"},
		edits: []edit{annotate("openshell.ai/frobnicate", "1")}},
	{name: "TTL over the maximum", want: []string{"openshell.ai/permissive-ttl", "permissive.max_ttl"},
		edits: []edit{permissive, annotate(annotations.KeyPermissiveTTL, "720h")}},
	{name: "permissive forbidden", want: []string{"openshell.ai/permissive", "permissive.allowed"},
		settings: map[string]any{"permissive": map[string]any{"allowed": false}}, edits: []edit{permissive}},
	{name: "policy name", want: []string{"openshell.ai/policy", "../etc/passwd"}, edits: []edit{policy("../etc/passwd")}},
	{name: "missing policy", want: []string{`policy "nobody" does not exist`, "nobody.yaml"}, edits: []edit{policy("nobody")}},
	{name: "invalid policy", want: []string{"bad.yaml", "version"}, edits: []edit{policy("bad")},
		prepare: func(c *container) { c.w.policy("bad", "version: 7\n") }},
	{name: "invalid policy, permissive", want: []string{"bad.yaml", "netwrk_policies"}, edits: []edit{policy("bad"), permissive},
		prepare: func(c *container) { c.w.policy("bad", "version: 1\nnetwrk_policies: {}\n") }},
	{name: "policy that is no YAML", want: []string{"bad.yaml"}, edits: []edit{policy("bad")},
		prepare: func(c *container) { c.w.policy("bad", "version: [\n\x01") }},
	{name: "missing low-level runtime", want: []string{"/nonexistent/runc", "runtime"},
		settings: map[string]any{"runtime": "/nonexistent/runc"}},
	{name: "node configuration", want: []string{"config.yaml", "frobnicate"}, settings: map[string]any{"frobnicate": true}},
	{name: "missing root certificates", want: []string{"tls.extra_roots", "/nonexistent.pem"},
		settings: map[string]any{"tls": map[string]any{"extra_roots": []string{"/nonexistent.pem"}}}},
	{name: "policy that everybody may write", want: []string{"open.yaml", "0666", "chmod go-w"}, edits: []edit{policy("open")},
		prepare: func(c *container) {
			c.w.policy("open", noNetwork)
			must(c.w.t, os.Chmod(c.w.policyFile("open"), 0o666))
		}},
	{name: "policy that everybody may write, permissive", want: []string{"open.yaml", "0666", "chmod go-w"},
		edits: []edit{policy("open"), permissive},
		prepare: func(c *container) {
			c.w.policy("open", noNetwork)
			must(c.w.t, os.Chmod(c.w.policyFile("open"), 0o666))
		}},
	{name: "policy of another's", want: []string{"open.yaml", "uid 65534", "chown -h root"}, edits: []edit{policy("open")},
		prepare: func(c *container) {
			c.w.policy("open", noNetwork)
			must(c.w.t, os.Chown(c.w.policyFile("open"), 65534, 0))
		}},
	{name: "policies in everybody's directory", want: []string{"policies", "0777", "chmod go-w"},
		prepare: func(c *container) { must(c.w.t, os.Chmod(c.w.policyDir, 0o777)) }},
	{name: "learned policy that everybody may write", want: []string{"learned.yaml", "0606", "chmod go-w"}, edits: []edit{policy("open")},
		prepare: func(c *container) {
			learned := filepath.Join(c.w.stateDir, "policies", "open", "learned.yaml")
			must(c.w.t, os.MkdirAll(filepath.Dir(learned), 0o700))
			must(c.w.t, os.WriteFile(learned, []byte("version: 1\n"), 0o600))
			must(c.w.t, os.Chmod(learned, 0o606))
		}},
	{name: "maximum policy in another's directory", want: []string{"uid 65534", "chown -h root"},
		settings: map[string]any{"maximum_policy": "/srv/openshell-e2e-max/maximum.yaml"},
		prepare: func(c *container) {
			const dir = "/srv/openshell-e2e-max"
			must(c.w.t, os.MkdirAll(dir, 0o755))
			c.w.t.Cleanup(func() { os.RemoveAll(dir) })
			must(c.w.t, os.WriteFile(filepath.Join(dir, "maximum.yaml"), []byte(noNetwork), 0o600))
			must(c.w.t, os.Chown(dir, 65534, 0))
		}},
	{name: "configuration that everybody may write", want: []string{"config.yaml", "0666", "chmod go-w"},
		prepare: func(c *container) { must(c.w.t, os.Chmod(c.w.config, 0o666)) }},
	{name: "state directory that everybody may write", want: []string{"state_dir", "0777", "chmod go-w"},
		prepare: func(c *container) { must(c.w.t, os.Chmod(c.w.stateDir, 0o777)) }},
	{name: "run directory that everybody may write", want: []string{"run_dir", "0707", "chmod go-w"},
		prepare: func(c *container) { must(c.w.t, os.Chmod(c.w.runDir, 0o707)) }},
	{name: "dangling state directory", want: []string{"state_dir", "symbolic link", "leads nowhere"},
		prepare: func(c *container) {
			must(c.w.t, os.Rename(c.w.stateDir, c.w.stateDir+".away"))
			must(c.w.t, os.Symlink("nowhere", c.w.stateDir))
		}},
	{name: "container id upwards", want: []string{"container id", ".."}, id: ".."},
	{name: "container id with a slash", want: []string{"container id", "a/b"}, id: "a/b"},
	{name: "host's PID namespace", want: []string{"linux.namespaces", "PID"}, edits: []edit{namespace(specs.PIDNamespace, "")}},
	{name: "host's PID namespace by path", want: []string{"linux.namespaces", "PID"},
		edits: []edit{namespace(specs.PIDNamespace, "/proc/1/ns/pid")}},
	{name: "network namespace that is none", want: []string{"/proc/self/ns/mnt", "network namespace"},
		edits: []edit{namespace(specs.NetworkNamespace, "/proc/self/ns/mnt")}},
	{name: "network namespace that does not exist", want: []string{"/nonexistent/netns", "network namespace"},
		edits: []edit{namespace(specs.NetworkNamespace, "/nonexistent/netns")}},
	{name: "mount of the state directory", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *world) string { return w.stateDir })},
	{name: "mount of the run directory", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *world) string { return w.runDir })},
	{name: "mount above them", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *world) string { return w.dir })},
	{name: "mount of the host's root", want: []string{"mounts[5]", "/data"}, prepare: bindMount("/")},
	{name: "mount of an engine's socket", want: []string{"mounts[5]", "socket"}, prepare: bindMount("/run/containerd/containerd.sock")},
	{name: "mount of an engine's socket by a link", want: []string{"mounts[5]", "socket"}, prepare: func(c *container) {
		// The socket's own directory is a file system of these tests' own.
		must(c.w.t, os.WriteFile("/run/docker.sock", nil, 0o600))
		link := filepath.Join(c.w.dir, "link")
		must(c.w.t, os.Symlink("/run/docker.sock", link))
		bindMount(link)(c)
	}},
	{name: "mount of the sockets' directory", want: []string{"mounts[5]", "socket"}, prepare: bindMount("/run")},
	{name: "host's root as its own", want: []string{"root.path"}, edits: []edit{func(s *specs.Spec) { s.Root.Path = "/" }}},
	{name: "all block devices", want: []string{"linux.resources.devices[0]", "CAP_MKNOD"}, edits: []edit{func(s *specs.Spec) {
		s.Linux.Resources.Devices[0].Allow = true
		s.Process.Capabilities = capabilitySets([]string{"CAP_MKNOD"})
	}}},
	{name: "program not in PATH", want: []string{`exec: "no-such-program"`, "executable file not found in $PATH"},
		edits: []edit{args("no-such-program")}},
	{name: "program that does not exist", want: []string{`"/bin/no-such-program"`, "no such file or directory"},
		edits: []edit{args("/bin/no-such-program")}},
	{name: "program that is a directory", want: []string{`"/etc"`, "directory"}, edits: []edit{args("/etc")}},
	{name: "program that is not executable", want: []string{`"/etc/passwd"`, "permission denied"}, edits: []edit{args("/etc/passwd")}},
	{name: "no program", want: []string{"process.args"}, edits: []edit{args()}},
	{name: "no configuration", want: []string{"config.json", "no such file"},
		prepare: func(c *container) { must(c.w.t, os.Remove(c.configPath())) }},
	{name: "configuration that is no JSON", want: []string{"config.json"}, prepare: overwrite("{")},
	{name: "configuration that is no container", want: []string{"config.json"}, prepare: overwrite("{}")},
}

// Not parallel: what is left is counted on the whole machine.
func TestBadInput(t *testing.T) {
	for _, bad := range badInputs {
		t.Run(bad.name, func(t *testing.T) {
			w := newWorld(t)
			if bad.settings != nil {
				w = newWorld(t, bad.settings)
			}
			c := w.container(bad.edits...)
			if bad.id != "" {
				c.id = bad.id
			}
			if bad.prepare != nil {
				bad.prepare(c)
			}
			before := snap(t, w.places(c)...)
			for _, command := range []string{"create", "run"} {
				for _, format := range []string{"text", "json"} {
					c.refused(bad, command, format)
				}
			}
			nothingLeft(t, "a refused container", before, w.places(c)...)
		})
	}
}

// refused makes the container, in vain, and checks what is said about it.
func (c *container) refused(bad badInput, command, format string) {
	t := c.w.t
	t.Helper()
	log := filepath.Join(c.w.dir, command+"."+format)
	cmd := c.w.begin("--root", c.w.root, "--log", log, "--log-format", format, command, "--bundle", c.bundle, c.id)
	o := c.w.finish(cmd)
	if o.status != 1 || o.stdout != "" || strings.Count(o.stderr, "\n") != 1 {
		t.Fatalf("%s, want exit status 1 and one line: %s", command, o)
	}
	for _, want := range bad.want {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %q is not in %q", command, want, o.stderr)
		}
	}
	text, err := os.ReadFile(log)
	must(t, err)
	message := strings.TrimPrefix(strings.TrimSuffix(o.stderr, "\n"), "openshell: ")
	var logged struct{ Level, Msg, Time string }
	if format == "json" {
		must(t, json.Unmarshal(text, &logged))
	} else {
		logged = parseText(t, string(text))
	}
	if logged.Level != "error" || logged.Msg != message || logged.Time == "" || strings.Count(string(text), "\n") != 1 {
		t.Errorf("%s: the %s log says %q, standard error %q", command, format, text, message)
	}
}

// parseText reads a line of logrus's text format: time="…" level=error msg="…".
func parseText(t *testing.T, line string) (out struct{ Level, Msg, Time string }) {
	t.Helper()
	quoted := func(key string) (value string) {
		_, rest, found := strings.Cut(line, key+"=")
		if !found || json.NewDecoder(strings.NewReader(rest)).Decode(&value) != nil {
			t.Errorf("no %s in the log line %q", key, line)
		}
		return value
	}
	out.Time, out.Msg = quoted("time"), quoted("msg")
	if strings.Contains(line, " level=error ") {
		out.Level = "error"
	}
	return out
}
