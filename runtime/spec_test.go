// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs/validate"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
)

var testPreparation = preparation{
	ready: sandbox.Ready{Inner: "/proc/77/fd/9", Confine: "/run/o/sandboxes/s/confine", TLS: "/run/o/sandboxes/s/tls",
		Covers: []sandbox.Cover{{Source: "/run/o/sandboxes/s/tls/ca-bundle.pem", Target: "/etc/ssl/certs/ca-certificates.crt"}}},
	launcher: "/usr/libexec/openshell/openshell-init",
	trustDir: sandbox.TrustDir,
	seccomp:  true,
}

// writeBundle writes a config.json and returns its path.
func writeBundle(t *testing.T, config string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(config), 0o640); err != nil {
		t.Fatal(err)
	}
	return file
}

// prepared rewrites a config.json as Prepare does, and returns the result.
func prepared(t *testing.T, file string, p preparation) (specs.Spec, map[string]any) {
	t.Helper()
	doc, spec, err := loadSpec(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeSpec(file, doc, spec, p); err != nil {
		t.Fatal(err)
	}
	return decoded(t, file)
}

func decoded(t *testing.T, file string) (spec specs.Spec, raw map[string]any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, into := range []any{&spec, &raw} {
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatal(err)
		}
	}
	return spec, raw
}

const minimal = `{"ociVersion":"1.2.0","process":{"args":["sh","-c","id"],"cwd":"/"},"root":{"path":"rootfs"},"linux":{}}`

func withLinux(linux string) string {
	return strings.Replace(minimal, `"linux":{}`, `"linux":`+linux, 1)
}

func TestRewriteNetwork(t *testing.T) {
	for name, tt := range map[string]struct {
		linux string
		outer sandbox.Outer
		want  []specs.LinuxNamespace
	}{
		"none": {`{"namespaces":[{"type":"pid"}]}`, sandbox.Outer{Kind: sandbox.OuterHost},
			[]specs.LinuxNamespace{{Type: "pid"}, {Type: "network", Path: "/proc/77/fd/9"}}},
		"new": {`{"namespaces":[{"type":"network"},{"type":"pid"}]}`, sandbox.Outer{Kind: sandbox.OuterHost},
			[]specs.LinuxNamespace{{Type: "network", Path: "/proc/77/fd/9"}, {Type: "pid"}}},
		"path": {`{"namespaces":[{"type":"network","path":"/run/netns/x"}]}`, sandbox.Outer{Kind: sandbox.OuterPath, Path: "/run/netns/x"},
			[]specs.LinuxNamespace{{Type: "network", Path: "/proc/77/fd/9"}}},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeBundle(t, withLinux(tt.linux))
			for range 2 { // a second preparation starts from the engine's words
				_, spec, err := loadSpec(file)
				if err != nil {
					t.Fatal(err)
				}
				if got := outerOf(spec, tree{}, "run"); got != tt.outer {
					t.Errorf("outer is %+v, want %+v", got, tt.outer)
				}
				got, _ := prepared(t, file, testPreparation)
				if !reflect.DeepEqual(got.Linux.Namespaces, tt.want) {
					t.Errorf("got %+v, want %+v", got.Linux.Namespaces, tt.want)
				}
			}
		})
	}
}

func TestOuterOfNewNamespace(t *testing.T) {
	hook := []specs.Hook{{Path: "/cni"}}
	files := []specs.Mount{{Destination: "/etc/resolv.conf", Type: "bind", Source: "/engine/resolv.conf"},
		{Destination: "/etc/hosts", Type: "bind", Source: "/engine/hosts"}}
	host, empty := sandbox.Outer{Kind: sandbox.OuterHost}, sandbox.Outer{Kind: sandbox.OuterEmpty}
	late := func(fallback sandbox.OuterKind) sandbox.Outer {
		return sandbox.Outer{Kind: sandbox.OuterLate, Fallback: fallback, Placeholders: true}
	}
	inHook := sandbox.Outer{Kind: sandbox.OuterLate, Fallback: sandbox.OuterEmpty}
	for name, tt := range map[string]struct {
		command string
		hooks   *specs.Hooks
		mounts  []specs.Mount
		want    sandbox.Outer
	}{
		"plain":              {"create", nil, nil, late(sandbox.OuterHost)},
		"plain in one go":    {"run", nil, nil, host},
		"restored":           {"restore", nil, nil, host},
		"createRuntime":      {"create", &specs.Hooks{CreateRuntime: hook}, nil, inHook},
		"createContainer":    {"create", &specs.Hooks{CreateContainer: hook}, nil, late(sandbox.OuterEmpty)},
		"hooks in one go":    {"run", &specs.Hooks{CreateRuntime: hook}, nil, inHook},
		"hooks and restored": {"restore", &specs.Hooks{CreateRuntime: hook}, nil, empty},
		"poststop":           {"create", &specs.Hooks{Poststop: hook}, nil, late(sandbox.OuterHost)},
		"an engine's files":  {"create", nil, files, late(sandbox.OuterEmpty)},
		"podman's without":   {"create", nil, []specs.Mount{files[1], {Destination: "/etc/hostname", Type: "bind", Source: "/x"}}, late(sandbox.OuterEmpty)},
		"resolv.conf only":   {"create", nil, files[:1], late(sandbox.OuterHost)},
		"files in one go":    {"run", nil, files, empty},
	} {
		spec := &specs.Spec{Root: &specs.Root{Path: t.TempDir()}, Hooks: tt.hooks, Mounts: tt.mounts,
			Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.NetworkNamespace}}}}
		if got := outerOf(spec, specTree(t, "/", spec), tt.command); got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// Annotations are the pod author's: none of them may choose the network or have
// a mount taken away.
func TestAnnotationsDoNotRestore(t *testing.T) {
	config := strings.Replace(withLinux(`{"namespaces":[{"type":"network","path":"/run/netns/pod"}]}`), `"root"`,
		`"annotations":{"openshell.ai/internal.prepared":"true","openshell.ai/internal.network":"/proc/1/ns/net","openshell.ai":"{}"},"root"`, 1)
	_, spec, err := loadSpec(writeBundle(t, config))
	if err != nil {
		t.Fatal(err)
	}
	if got := outerOf(spec, tree{}, "create"); got.Path != "/run/netns/pod" {
		t.Errorf("the outer namespace is %+v", got)
	}
}

func TestRewriteIsIdempotent(t *testing.T) {
	config := strings.Replace(withLinux(`{"namespaces":[{"type":"pid"}],"maskedPaths":["/proc/kcore"]}`), `"root"`,
		`"mounts":[{"destination":"/x","type":"bind","source":"/etc/tls/ca-bundle.pem"}],"root"`, 1)
	config = strings.Replace(config, `"cwd"`, `"capabilities":{"bounding":["CAP_CHOWN","CAP_SYS_ADMIN"]},"cwd"`, 1)
	file := writeBundle(t, config)
	once, _ := prepared(t, file, testPreparation)
	twice, _ := prepared(t, file, testPreparation)
	if !reflect.DeepEqual(once, twice) {
		t.Errorf("once  %+v\ntwice %+v", once, twice)
	}
	if got := twice.Process.Args; !slices.Equal(got, []string{launcher, "--", "sh", "-c", "id"}) {
		t.Errorf("args %q", got)
	}
	if twice.Mounts[0].Source != "/etc/tls/ca-bundle.pem" || len(twice.Mounts) != 5 {
		t.Errorf("mounts %+v", twice.Mounts)
	}

	// In another sandbox: nothing of the first one is left.
	moved := testPreparation
	moved.ready = sandbox.Ready{Inner: "/proc/88/fd/4", Confine: "/run/o/sandboxes/z/confine", TLS: "/run/o/sandboxes/z/tls",
		Covers: []sandbox.Cover{{Source: "/run/o/sandboxes/z/tls/ca-bundle.pem", Target: "/etc/ssl/certs/ca-certificates.crt"}}}
	prepared(t, file, moved)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); strings.Contains(text, "sandboxes/s/") || strings.Contains(text, "/proc/77") {
		t.Errorf("the first sandbox is still named: %s", text)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o640 {
		t.Errorf("mode is now %v", info.Mode())
	}
}

// A bundle that is edited between two runs, as people do with runc, keeps the edit.
func TestRewriteAfterEdit(t *testing.T) {
	file := writeBundle(t, minimal)
	prepared(t, file, testPreparation)
	_, raw := decoded(t, file)
	raw["process"].(map[string]any)["args"] = []string{"ls"}
	raw["mounts"] = append(raw["mounts"].([]any), map[string]any{"destination": "/new", "type": "tmpfs"})
	data, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	spec, _ := prepared(t, file, testPreparation)
	if !slices.Equal(spec.Process.Args, []string{launcher, "--", "ls"}) {
		t.Errorf("args %q", spec.Process.Args)
	}
	if spec.Mounts[0].Destination != "/new" || len(spec.Mounts) != 5 {
		t.Errorf("mounts %+v", spec.Mounts)
	}
}

func TestRewriteKeepsWhatItDoesNotKnow(t *testing.T) {
	config := `{"ociVersion":"9.0.0","future":{"a":[1,{"b":null}]},"root":{"path":"rootfs","new":true},
	"process":{"args":["sh"],"cwd":"/","newer":"<&>","capabilities":{"bounding":["CAP_BPF"],"newset":["X"]},"rlimits":[{"type":"RLIMIT_CORE","hard":18446744073709551615,"soft":9007199254740993}]},
	"mounts":[{"destination":"/p","type":"proc","source":"proc","flavour":"new"}],
	"linux":{"resources":{"memory":{"limit":9223372036854775807}},"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","newflag":7},
	"namespaces":[{"type":"pid","since":"1.9"},{"type":"network"}]}}`
	file := writeBundle(t, config)
	for range 2 {
		spec, _ := prepared(t, file, testPreparation)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"future":{"a":[1,{"b":null}]}`, `"new":true`, `"newer":"\u003c\u0026\u003e"`, `"newset":["X"]`,
			"18446744073709551615", "9007199254740993", "9223372036854775807", `"flavour":"new"`, `"newflag":7`, `"since":"1.9"`} {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s is lost: %s", want, data)
			}
		}
		if len(spec.Process.Capabilities.Bounding) != 0 || spec.Linux.Seccomp.DefaultAction != "SCMP_ACT_ERRNO" || len(spec.Linux.Seccomp.Syscalls) != 1 {
			t.Errorf("capabilities %+v, seccomp %+v", spec.Process.Capabilities, spec.Linux.Seccomp)
		}
	}
}

func TestRewriteConfinesTheFirstProcess(t *testing.T) {
	caps := `["CAP_CHOWN","CAP_NET_ADMIN","cap_sys_ptrace"]`
	config := strings.Replace(minimal, `"cwd"`, `"env":["PATH=/bin","SSL_CERT_FILE=/mine","DENO_CERT="],
	"capabilities":{"bounding":`+caps+`,"effective":`+caps+`,"inheritable":`+caps+`,"permitted":`+caps+`,"ambient":`+caps+`},"cwd"`, 1)
	spec, _ := prepared(t, writeBundle(t, config), testPreparation)
	p := spec.Process
	if !p.NoNewPrivileges || !slices.Equal(p.Args[:2], []string{launcher, "--"}) {
		t.Errorf("process %+v", p)
	}
	if got := p.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_CHOWN", "CAP_NET_ADMIN"}) {
		t.Errorf("bounding set %q", got)
	}
	for _, set := range [][]string{p.Capabilities.Effective, p.Capabilities.Inheritable, p.Capabilities.Permitted, p.Capabilities.Ambient} {
		if !slices.Equal(set, []string{"CAP_CHOWN"}) {
			t.Errorf("capabilities %+v", p.Capabilities)
		}
	}
	env := map[string]string{}
	for _, e := range p.Env {
		name, value, _ := strings.Cut(e, "=")
		if _, twice := env[name]; twice {
			t.Errorf("%s is set twice", name)
		}
		env[name] = value
	}
	for name, want := range map[string]string{"SSL_CERT_FILE": "/mine", "DENO_CERT": "", "PATH": "/bin",
		"CURL_CA_BUNDLE": "/etc/openshell-tls/ca-bundle.pem", "NODE_EXTRA_CA_CERTS": "/etc/openshell-tls/openshell-ca.pem"} {
		if got, ok := env[name]; got != want || !ok {
			t.Errorf("%s=%s, want %s", name, got, want)
		}
	}
	if _, ok := env["JAVA_TOOL_OPTIONS"]; ok { // the JVM would say so on every start
		t.Error("JAVA_TOOL_OPTIONS is set")
	}
}

func TestRewriteMounts(t *testing.T) {
	spec, _ := prepared(t, writeBundle(t, minimal), testPreparation)
	got := map[string]string{}
	for _, m := range spec.Mounts {
		got[m.Destination] = m.Source
		if m.Type != "bind" || !slices.Equal(m.Options, []string{"bind", "ro", "nosuid", "nodev"}) {
			t.Errorf("%+v is not read-only", m)
		}
	}
	want := map[string]string{
		"/dev/.openshell":                    "/run/o/sandboxes/s/confine",
		"/dev/.openshell/openshell-init":     "/usr/libexec/openshell/openshell-init",
		"/etc/openshell-tls":                 "/run/o/sandboxes/s/tls",
		"/etc/ssl/certs/ca-certificates.crt": "/run/o/sandboxes/s/tls/ca-bundle.pem",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if spec.Mounts[0].Destination != "/dev/.openshell" {
		t.Error("the launcher is mounted before its directory")
	}
}

func TestSeccompDefaultOnlyWhereAbsent(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		add    bool
		calls  func(n int) bool
	}{
		"absent":                {minimal, true, func(n int) bool { return n > 10 }},
		"absent, not wanted":    {minimal, false, func(n int) bool { return n == -1 }},
		"present":               {withLinux(`{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}`), true, func(n int) bool { return n == 0 }},
		"present, not wanted":   {withLinux(`{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW"}}`), false, func(n int) bool { return n == 0 }},
		"null is as if missing": {withLinux(`{"seccomp":null}`), true, func(n int) bool { return n > 10 }},
	} {
		p := testPreparation
		p.seccomp = tt.add
		spec, _ := prepared(t, writeBundle(t, tt.config), p)
		n := -1
		if spec.Linux.Seccomp != nil {
			n = len(spec.Linux.Seccomp.Syscalls)
			if _, err := specconv.SetupSeccomp(spec.Linux.Seccomp); err != nil {
				t.Errorf("%s: runc refuses the profile: %v", name, err)
			}
		}
		if !tt.calls(n) {
			t.Errorf("%s: %d rules", name, n)
		}
	}
}

func TestSeccompLetsTheLauncherConfineItself(t *testing.T) {
	const refusal = `{"names":["landlock_restrict_self","clone"],"action":"SCMP_ACT_ERRNO","errnoRet":0,"new":1}`
	const profile = `{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","prctl"],"action":"SCMP_ACT_ALLOW"},` + refusal + `]}}`
	for name, tt := range map[string]struct {
		linux string
		want  []string // is added to those that are there
		there int
	}{
		"none of it": {`{"seccomp":{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}}`, launcherCalls, 0},
		"no list":    {`{"seccomp":{"defaultAction":"SCMP_ACT_KILL_PROCESS"}}`, launcherCalls, 0},
		"what it lacks": {profile, slices.DeleteFunc(slices.Clone(launcherCalls), func(call string) bool {
			return call == "read" || call == "prctl" || call == "landlock_restrict_self"
		}), 2},
		"somebody is asked": {`{"seccomp":{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}}`, nil, 0},
		"all but some":      {`{"seccomp":{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[` + refusal + `]}}`, nil, 1},
		"all, and a record": {`{"seccomp":{"defaultAction":"SCMP_ACT_LOG"}}`, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeBundle(t, withLinux(tt.linux))
			for range 2 { // once more adds nothing
				spec, _ := prepared(t, file, testPreparation)
				rules := spec.Linux.Seccomp.Syscalls
				if len(rules) < tt.there {
					t.Fatalf("rules %+v", rules)
				}
				var added []string
				for _, rule := range rules[tt.there:] {
					if rule.Action != specs.ActAllow || len(rule.Args) > 0 {
						t.Errorf("added %+v", rule)
					}
					added = append(added, rule.Names...)
				}
				if !slices.Equal(added, tt.want) {
					t.Errorf("added %q, want %q", added, tt.want)
				}
				if _, err := specconv.SetupSeccomp(spec.Linux.Seccomp); err != nil {
					t.Errorf("runc refuses the profile: %v", err)
				}
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(tt.linux, refusal) && !strings.Contains(string(data), `"new":1`) {
					t.Errorf("the rule that was there is changed: %s", data)
				}
			}
		})
	}
}

// What runc itself would make of the rewritten specification.
func TestRewrittenSpecIsValid(t *testing.T) {
	bundle := t.TempDir()
	t.Chdir(bundle)
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		t.Fatal(err)
	}
	example, err := json.Marshal(specconv.Example())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(bundle, "config.json")
	if err := os.WriteFile(file, example, 0o600); err != nil {
		t.Fatal(err)
	}
	p := testPreparation
	p.ready.Inner = "/proc/self/ns/net"
	spec, _ := prepared(t, file, p)
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: "c1", Spec: &spec})
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Validate(config); err != nil {
		t.Fatal(err)
	}
	if config.Seccomp == nil || config.Namespaces.PathOf("NEWNET") != "/proc/self/ns/net" {
		t.Errorf("seccomp %v, namespaces %v", config.Seccomp, config.Namespaces)
	}
}

func TestConfineProcess(t *testing.T) {
	in := `{"args":["ls","-l"],"env":["A=b"],"cwd":"/","capabilities":{"bounding":["CAP_SYS_ADMIN"],"x":1},"user":{"uid":18446744073709551615},"later":[]}`
	in = strings.Replace(in, "18446744073709551615", "4294967295", 1)
	once, err := ConfineProcess(rootfs.Location{}, []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	twice, err := ConfineProcess(rootfs.Location{}, once)
	if err != nil {
		t.Fatal(err)
	}
	if string(once) != string(twice) {
		t.Errorf("once  %s\ntwice %s", once, twice)
	}
	var p specs.Process
	if err := json.Unmarshal(once, &p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Args, []string{launcher, "--", "ls", "-l"}) || !p.NoNewPrivileges || len(p.Capabilities.Bounding) != 0 || p.User.UID != 4294967295 {
		t.Errorf("got %s", once)
	}
	for _, kept := range []string{`"later":[]`, `"x":1`} {
		if !strings.Contains(string(once), kept) {
			t.Errorf("%s is lost: %s", kept, once)
		}
	}
}

// The launcher's own flags would name another confinement.
func TestConfineProcessThatNamesTheLauncher(t *testing.T) {
	for _, args := range [][]string{{launcher, "--dir", "/tmp/mine", "--", "sh"}, {launcher}} {
		in, err := json.Marshal(specs.Process{Args: args})
		if err != nil {
			t.Fatal(err)
		}
		out, err := ConfineProcess(rootfs.Location{}, in)
		if err != nil {
			t.Fatal(err)
		}
		var p specs.Process
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		if want := append([]string{launcher, "--"}, args...); !slices.Equal(p.Args, want) {
			t.Errorf("got %q, want %q", p.Args, want)
		}
	}
}

func TestConfineProcessRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: "process.args", `[]`: "process", `{"args":["a"]} {}`: "one JSON object", `{"args":["a"]}]`: "one JSON object",
		`{"args":["a"],"Args":["b"]}`: "are the same", `{"args":"a"}`: "process", ``: "process", `null`: "process",
	} {
		if out, err := ConfineProcess(rootfs.Location{}, []byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", in, out, err)
		}
	}
}

func FuzzConfineProcess(f *testing.F) {
	f.Add([]byte(`{"args":["ls"],"env":["A=b"],"capabilities":{"bounding":["CAP_SYS_ADMIN"]}}`))
	f.Add([]byte(`{"args":["/dev/.openshell/openshell-init","--","x"],"Args":["y"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := ConfineProcess(rootfs.Location{}, in)
		if err != nil {
			return
		}
		var p specs.Process
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		if !isLaunched(p.Args) || !p.NoNewPrivileges {
			t.Fatalf("%s became %s", in, out)
		}
		if c := p.Capabilities; c != nil && slices.ContainsFunc(slices.Concat(c.Permitted, c.Effective, c.Inheritable, c.Ambient), isDropped) {
			t.Fatalf("%s keeps capabilities: %s", in, out)
		}
	})
}
