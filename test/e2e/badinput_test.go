// SPDX-License-Identifier: Apache-2.0

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
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// badInput is a container that must not be made.
type badInput struct {
	name     string
	want     []string // in the one line that says why
	settings map[string]any
	edits    []node.Edit
	id       string
	prepare  func(*node.Container) // after the bundle is written
	shows    string                // a row of test/cases, or none
}

func namespaces(change func([]specs.LinuxNamespace) []specs.LinuxNamespace) node.Edit {
	return func(s *specs.Spec) { s.Linux.Namespaces = change(s.Linux.Namespaces) }
}

// namespace replaces a namespace by the one that a path names; "" is none.
func namespace(kind specs.LinuxNamespaceType, path string) node.Edit {
	return namespaces(func(list []specs.LinuxNamespace) []specs.LinuxNamespace {
		list = slices.DeleteFunc(list, func(n specs.LinuxNamespace) bool { return n.Type == kind })
		if path != "" {
			list = append(list, specs.LinuxNamespace{Type: kind, Path: path})
		}
		return list
	})
}

// bindMount mounts something of the host's.
func bindMount(source string) func(*node.Container) {
	return bindMountOf(func(*node.World) string { return source })
}

func bindMountOf(source func(*node.World) string) func(*node.Container) {
	return func(c *node.Container) {
		c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: source(c.World), Options: []string{"rbind"}})
		c.Write()
	}
}

func overwrite(text string) func(*node.Container) {
	return func(c *node.Container) { node.Must(c.World.T, os.WriteFile(c.ConfigPath(), []byte(text), 0o600)) }
}

var badInputs = []badInput{
	{name: "permissive value", want: []string{"openshell.ai/permissive", `"true" or "false"`},
		edits: []node.Edit{node.Annotate(annotations.KeyPermissive, "maybe")}},
	{name: "TTL value", want: []string{"openshell.ai/permissive-ttl", "duration"},
		edits: []node.Edit{node.Permissive, node.Annotate(annotations.KeyPermissiveTTL, "soon")}},
	{name: "on-expiry value", want: []string{"openshell.ai/permissive-on-expiry", `"stop"`},
		edits: []node.Edit{node.Permissive, node.Annotate(annotations.KeyPermissiveOnExpiry, "explode")}},
	{name: "TTL without permissive", want: []string{"openshell.ai/permissive-ttl", "openshell.ai/permissive=true"},
		edits: []node.Edit{node.Annotate(annotations.KeyPermissiveTTL, "1h")}},
	{name: "misspelt key", want: []string{"openshell.ai/permisive", "did you mean openshell.ai/permissive?"},
		edits: []node.Edit{node.Annotate("openshell.ai/permisive", "true")}},
	{name: "unknown key", want: []string{"openshell.ai/frobnicate", "openshell.ai/policy"},
		edits: []node.Edit{node.Annotate("openshell.ai/frobnicate", "1")}},
	{name: "TTL over the maximum", want: []string{"openshell.ai/permissive-ttl", "permissive.max_ttl"},
		edits: []node.Edit{node.Permissive, node.Annotate(annotations.KeyPermissiveTTL, "720h")}},
	{name: "permissive forbidden", want: []string{"openshell.ai/permissive", "permissive.allowed"},
		settings: map[string]any{"permissive": map[string]any{"allowed": false}}, edits: []node.Edit{node.Permissive}},
	{name: "policy name", want: []string{"openshell.ai/policy", "../etc/passwd"}, edits: []node.Edit{node.Policy("../etc/passwd")}},
	{name: "missing policy", want: []string{`policy "nobody" does not exist`, "nobody.yaml"}, edits: []node.Edit{node.Policy("nobody")}},
	{name: "invalid policy", want: []string{"bad.yaml", "version"}, edits: []node.Edit{node.Policy("bad")},
		prepare: func(c *node.Container) { c.World.Policy("bad", "version: 7\n") }},
	{name: "invalid policy, permissive", want: []string{"bad.yaml", "netwrk_policies"}, edits: []node.Edit{node.Policy("bad"), node.Permissive},
		prepare: func(c *node.Container) { c.World.Policy("bad", "version: 1\nnetwrk_policies: {}\n") }},
	{name: "policy that is no YAML", want: []string{"bad.yaml"}, edits: []node.Edit{node.Policy("bad")},
		prepare: func(c *node.Container) { c.World.Policy("bad", "version: [\n\x01") }},
	{name: "missing low-level runtime", want: []string{"/nonexistent/runc", "runtime"},
		settings: map[string]any{"runtime": "/nonexistent/runc"}},
	{name: "node configuration", want: []string{"config.yaml", "frobnicate"}, settings: map[string]any{"frobnicate": true}},
	{name: "missing root certificates", want: []string{"tls.extra_roots", "/nonexistent.pem"},
		settings: map[string]any{"tls": map[string]any{"extra_roots": []string{"/nonexistent.pem"}}}},
	{name: "policy that everybody may write", shows: "faults/others may write a policy", want: []string{"open.yaml", "0666", "chmod go-w"}, edits: []node.Edit{node.Policy("open")},
		prepare: func(c *node.Container) {
			c.World.Policy("open", noNetwork)
			node.Must(c.World.T, os.Chmod(filepath.Join(c.World.Dir, "policies", "open.yaml"), 0o666))
		}},
	{name: "policy that everybody may write, permissive", want: []string{"open.yaml", "0666", "chmod go-w"},
		edits: []node.Edit{node.Policy("open"), node.Permissive},
		prepare: func(c *node.Container) {
			c.World.Policy("open", noNetwork)
			node.Must(c.World.T, os.Chmod(filepath.Join(c.World.Dir, "policies", "open.yaml"), 0o666))
		}},
	{name: "policy of another's", shows: "faults/others may write a policy", want: []string{"open.yaml", "uid 65534", "chown -h root"}, edits: []node.Edit{node.Policy("open")},
		prepare: func(c *node.Container) {
			c.World.Policy("open", noNetwork)
			node.Must(c.World.T, os.Chown(filepath.Join(c.World.Dir, "policies", "open.yaml"), 65534, 0))
		}},
	{name: "policies in everybody's directory", want: []string{"policies", "0777", "chmod go-w"},
		prepare: func(c *node.Container) { node.Must(c.World.T, os.Chmod(filepath.Join(c.World.Dir, "policies"), 0o777)) }},
	{name: "learned policy that everybody may write", want: []string{"learned.yaml", "0606", "chmod go-w"}, edits: []node.Edit{node.Policy("open")},
		prepare: func(c *node.Container) {
			learned := filepath.Join(c.World.StateDir, "policies", "open", "learned.yaml")
			node.Must(c.World.T, os.MkdirAll(filepath.Dir(learned), 0o700))
			node.Must(c.World.T, os.WriteFile(learned, []byte("version: 1\n"), 0o600))
			node.Must(c.World.T, os.Chmod(learned, 0o606))
		}},
	{name: "maximum policy in another's directory", want: []string{"uid 65534", "chown -h root"},
		settings: map[string]any{"maximum_policy": "/srv/openshell-e2e-max/maximum.yaml"},
		prepare: func(c *node.Container) {
			const dir = "/srv/openshell-e2e-max"
			node.Must(c.World.T, os.MkdirAll(dir, 0o755))
			c.World.T.Cleanup(func() { os.RemoveAll(dir) })
			node.Must(c.World.T, os.WriteFile(filepath.Join(dir, "maximum.yaml"), []byte(noNetwork), 0o600))
			node.Must(c.World.T, os.Chown(dir, 65534, 0))
		}},
	{name: "configuration that everybody may write", want: []string{"config.yaml", "0666", "chmod go-w"},
		prepare: func(c *node.Container) {
			node.Must(c.World.T, os.Chmod(filepath.Join(c.World.Dir, "config.yaml"), 0o666))
		}},
	{name: "state directory that everybody may write", want: []string{"state_dir", "0777", "chmod go-w"},
		prepare: func(c *node.Container) { node.Must(c.World.T, os.Chmod(c.World.StateDir, 0o777)) }},
	{name: "run directory that everybody may write", want: []string{"run_dir", "0707", "chmod go-w"},
		prepare: func(c *node.Container) { node.Must(c.World.T, os.Chmod(c.World.RunDir, 0o707)) }},
	{name: "dangling state directory", shows: "faults/dangling state directory", want: []string{"state_dir", "symbolic link", "leads nowhere"},
		prepare: func(c *node.Container) {
			node.Must(c.World.T, os.Rename(c.World.StateDir, c.World.StateDir+".away"))
			node.Must(c.World.T, os.Symlink("nowhere", c.World.StateDir))
		}},
	{name: "container id upwards", want: []string{"container id", ".."}, id: ".."},
	{name: "container id with a slash", want: []string{"container id", "a/b"}, id: "a/b"},
	{name: "host's PID namespace", want: []string{"linux.namespaces", "PID"}, edits: []node.Edit{namespace(specs.PIDNamespace, "")}},
	{name: "host's PID namespace by path", want: []string{"linux.namespaces", "PID"},
		edits: []node.Edit{namespace(specs.PIDNamespace, "/proc/1/ns/pid")}},
	{name: "network namespace that is none", want: []string{"/proc/self/ns/mnt", "network namespace"},
		edits: []node.Edit{namespace(specs.NetworkNamespace, "/proc/self/ns/mnt")}},
	{name: "network namespace that does not exist", want: []string{"/nonexistent/netns", "network namespace"},
		edits: []node.Edit{namespace(specs.NetworkNamespace, "/nonexistent/netns")}},
	{name: "mount of the state directory", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *node.World) string { return w.StateDir })},
	{name: "mount of the run directory", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *node.World) string { return w.RunDir })},
	{name: "mount above them", want: []string{"mounts[5]", "/data"}, prepare: bindMountOf(func(w *node.World) string { return w.Dir })},
	{name: "mount of the host's root", want: []string{"mounts[5]", "/data"}, prepare: bindMount("/")},
	{name: "mount of an engine's socket", want: []string{"mounts[5]", "socket"}, prepare: bindMount("/run/containerd/containerd.sock")},
	{name: "mount of an engine's socket by a link", want: []string{"mounts[5]", "socket"}, prepare: func(c *node.Container) {
		// The socket's own directory is a file system of these tests' own.
		node.Must(c.World.T, os.WriteFile("/run/docker.sock", nil, 0o600))
		link := filepath.Join(c.World.Dir, "link")
		node.Must(c.World.T, os.Symlink("/run/docker.sock", link))
		bindMount(link)(c)
	}},
	{name: "mount of the sockets' directory", want: []string{"mounts[5]", "socket"}, prepare: bindMount("/run")},
	{name: "host's root as its own", want: []string{"root.path"}, edits: []node.Edit{func(s *specs.Spec) { s.Root.Path = "/" }}},
	{name: "all block devices", want: []string{"linux.resources.devices[0]", "CAP_MKNOD"}, edits: []node.Edit{func(s *specs.Spec) {
		s.Linux.Resources.Devices[0].Allow = true
		s.Process.Capabilities = node.CapabilitySets([]string{"CAP_MKNOD"})
	}}},
	{name: "program not in PATH", want: []string{`exec: "no-such-program"`, "executable file not found in $PATH"},
		edits: []node.Edit{node.Args("no-such-program")}},
	{name: "program that does not exist", want: []string{`"/bin/no-such-program"`, "no such file or directory"},
		edits: []node.Edit{node.Args("/bin/no-such-program")}},
	{name: "program that is a directory", want: []string{`"/etc"`, "directory"}, edits: []node.Edit{node.Args("/etc")}},
	{name: "program that is not executable", want: []string{`"/etc/passwd"`, "permission denied"}, edits: []node.Edit{node.Args("/etc/passwd")}},
	{name: "no program", want: []string{"process.args"}, edits: []node.Edit{node.Args()}},
	{name: "no configuration", want: []string{"config.json", "no such file"},
		prepare: func(c *node.Container) { node.Must(c.World.T, os.Remove(c.ConfigPath())) }},
	{name: "configuration that is no JSON", want: []string{"config.json"}, prepare: overwrite("{")},
	{name: "configuration that is no container", want: []string{"config.json"}, prepare: overwrite("{}")},
}

// Not parallel: what is left is counted on the whole machine.
func TestBadInput(t *testing.T) {
	for _, bad := range badInputs {
		t.Run(bad.name, func(t *testing.T) {
			if bad.shows != "" {
				cases.Show(t, bad.shows)
			}
			w := node.New(t)
			if bad.settings != nil {
				w = node.New(t, bad.settings)
			}
			c := w.Container(bad.edits...)
			if bad.id != "" {
				c.ID = bad.id
			}
			if bad.prepare != nil {
				bad.prepare(c)
			}
			before := node.Snap(t, w.Places(c)...)
			for _, command := range []string{"create", "run"} {
				for _, format := range []string{"text", "json"} {
					refusedInput(c, bad, command, format)
				}
			}
			node.NothingLeft(t, "a refused container", before, w.Places(c)...)
		})
	}
}

// refusedInput makes the container, in vain, and checks what is said about it.
func refusedInput(c *node.Container, bad badInput, command, format string) {
	t := c.World.T
	t.Helper()
	log := filepath.Join(c.World.Dir, command+"."+format)
	cmd := c.World.Begin("--root", c.World.Root, "--log", log, "--log-format", format, command, "--bundle", c.Bundle, c.ID)
	o := c.World.Finish(cmd)
	if o.Status != 1 || o.Stdout != "" || strings.Count(o.Stderr, "\n") != 1 {
		t.Fatalf("%s, want exit status 1 and one line: %s", command, o)
	}
	for _, want := range bad.want {
		if !strings.Contains(o.Stderr, want) {
			t.Errorf("%s: %q is not in %q", command, want, o.Stderr)
		}
	}
	text, err := os.ReadFile(log)
	node.Must(t, err)
	message := strings.TrimPrefix(strings.TrimSuffix(o.Stderr, "\n"), "openshell: ")
	var logged struct{ Level, Msg, Time string }
	if format == "json" {
		node.Must(t, json.Unmarshal(text, &logged))
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
