// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"slices"
	"strings"
	"testing"
)

// The command lines are those that podman, conmon, containerd's shim, cri-o and
// dockerd were seen to use.
func TestParseArgs(t *testing.T) {
	tests := []struct {
		line string
		want Invocation
	}{
		{"--log-format=json --log /u/oci-log create --bundle /u --pid-file /u/pidfile c1",
			Invocation{Command: "create", ID: "c1", Bundle: "/u", Log: "/u/oci-log", LogFormat: "json"}},
		{"--systemd-cgroup --root=/r create --no-pivot --no-new-keyring --bundle /u --pid-file /p c1",
			Invocation{Command: "create", ID: "c1", Bundle: "/u", Root: "/r"}},
		{"--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json create --bundle /b --pid-file /b/init.pid --console-socket /s c1",
			Invocation{Command: "create", ID: "c1", Bundle: "/b", Root: "/run/containerd/runc/k8s.io", Log: "/b/log.json", LogFormat: "json"}},
		{"start c1", Invocation{Command: "start", ID: "c1"}},
		{"--log-format=json --log /l exec --pid-file /p --process /u/exec-process-1 --detach --tty --console-socket /tmp/conmon-term.X c1",
			Invocation{Command: "exec", ID: "c1", Process: "/u/exec-process-1", Log: "/l", LogFormat: "json"}},
		{"exec --process=/p.json --preserve-fds 3 c1", Invocation{Command: "exec", ID: "c1", Process: "/p.json", Preserved: 3}},
		{"exec -p /p.json -d c1", Invocation{Command: "exec", ID: "c1", Process: "/p.json"}},
		{"exec --process /a -p=/b c1", Invocation{Command: "exec", ID: "c1", Process: "/b"}},
		{"exec c1 create --bundle /x --process /y -p z --root /q", Invocation{Command: "exec", ID: "c1"}},
		{"exec -t c1 sh -c create", Invocation{Command: "exec", ID: "c1"}},
		{"exec -e A=create -u 0 --cap CAP_SYS_ADMIN -- c1 ls", Invocation{Command: "exec", ID: "c1"}},
		{"pause c1", Invocation{Command: "pause", ID: "c1"}},
		{"update --resources=/var/tmp/podman1 c1", Invocation{Command: "update", ID: "c1"}},
		{"kill c1 9", Invocation{Command: "kill", ID: "c1", surplus: "9"}},
		{"kill --all c1 15", Invocation{Command: "kill", ID: "c1", surplus: "15"}},
		{"delete --force c1", Invocation{Command: "delete", ID: "c1", Force: true}},
		{"delete c1 --force", Invocation{Command: "delete", ID: "c1", Force: true}},
		{"delete --force=true c1", Invocation{Command: "delete", ID: "c1", Force: true}},
		{"delete --force=false c1", Invocation{Command: "delete", ID: "c1"}},
		{"ps --format json c1", Invocation{Command: "ps", ID: "json", surplus: "c1"}}, // only handed on
		{"restore --detach --image-path /i --work-path /w --bundle /b c1", Invocation{Command: "restore", ID: "c1", Bundle: "/b"}},
		{"restore --lsm-profile a --empty-ns network -b /b c1", Invocation{Command: "restore", ID: "c1", Bundle: "/b"}},
		{"run c1 --bundle /late", Invocation{Command: "run", ID: "c1", Bundle: "/late"}},
		{"run -b /b -- c1 --bundle /evil", Invocation{Command: "run", ID: "c1", Bundle: "/b", surplus: "--bundle"}},
		{"-root /r -log=/l run -bundle /b c1", Invocation{Command: "run", ID: "c1", Bundle: "/b", Root: "/r", Log: "/l"}},
		{"create --bundle=/a=b c1", Invocation{Command: "create", ID: "c1", Bundle: "/a=b"}},
		{"create --config /evil.json c1", Invocation{Command: "create", ID: "c1", specFile: "/evil.json"}},
		{"create --newflag value c1", Invocation{Command: "create", ID: "value", surplus: "c1"}},
		{"create --newflag=value c1", Invocation{Command: "create", ID: "c1"}},
		{"--newflag value create -b /b c1", Invocation{Command: "create", ID: "c1", Bundle: "/b"}},
		{"--newflag=value create c1", Invocation{Command: "create", ID: "c1"}},
		{"--debug policy create", Invocation{Command: "policy", ID: "create"}},
		{"--rootless false --criu /c --cgroup-manager disabled delete c1", Invocation{Command: "delete", ID: "c1"}},
		{"checkpoint --help", Invocation{Command: "checkpoint"}},
		{"features", Invocation{Command: "features"}},
		{"--version", Invocation{}},
		{"--root", Invocation{}},
		{"", Invocation{}},
		{"create --bundle", Invocation{Command: "create"}},
		{"exec --preserve-fds -1 c1", Invocation{Command: "exec", ID: "c1"}},
		{"exec --preserve-fds many c1", Invocation{Command: "exec", ID: "c1"}},
		{"update --resources - c1", Invocation{Command: "update", ID: "-", surplus: "c1"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			got := ParseArgs(strings.Fields(tt.line))
			if got.Command != tt.want.Command || got.ID != tt.want.ID || got.Root != tt.want.Root || got.Log != tt.want.Log ||
				got.LogFormat != tt.want.LogFormat || got.Bundle != tt.want.Bundle || got.Process != tt.want.Process ||
				got.Preserved != tt.want.Preserved || got.surplus != tt.want.surplus || got.specFile != tt.want.specFile {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestWithProcess(t *testing.T) {
	for line, want := range map[string]string{
		"exec --process /a -d c1":        "exec --process NEW -d c1",
		"exec -d --process=/a c1":        "exec -d --process=NEW c1",
		"exec -p /a c1":                  "exec -p NEW c1",
		"exec -p=/a=b c1":                "exec -p=NEW c1",
		"--root /a exec -process /a /a":  "--root /a exec -process NEW /a",
		"exec --process /a -p /b c1 a b": "exec --process /a -p NEW c1 a b",
	} {
		args := strings.Fields(line)
		inv := ParseArgs(args)
		if got := strings.Join(inv.withProcess("NEW"), " "); got != want {
			t.Errorf("%s: got %s", line, got)
		}
		if strings.Join(args, " ") != line {
			t.Errorf("%s: the original was changed to %q", line, args)
		}
	}
}

func TestWithPrefix(t *testing.T) {
	for line, want := range map[string]string{
		"exec c1 ls -l":                               "exec c1 INIT -- ls -l",
		"exec -t -e -c c1 ls":                         "exec -t -e -c c1 INIT -- ls", // -c is a value here
		"exec --cap CAP_SYS_ADMIN c1 ls":              "exec c1 INIT -- ls",
		"exec --cap=cap_net_admin -c KILL c1 ls":      "exec -c KILL c1 INIT -- ls",
		"exec -c=NET_RAW --cap CAP_CHOWN,BPF c1 a":    "exec c1 INIT -- a",
		"exec c1 capsh --cap CAP_SYS_ADMIN -c BPF":    "exec c1 INIT -- capsh --cap CAP_SYS_ADMIN -c BPF",
		"--root /r exec -c CAP_CHOWN --tty -- c1 a b": "--root /r exec -c CAP_CHOWN --tty -- c1 INIT -- a b",
	} {
		inv := ParseArgs(strings.Fields(line))
		if got := strings.Join(inv.withPrefix(givesDropped, "INIT", "--"), " "); got != want {
			t.Errorf("%s: got %s", line, got)
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	for _, seed := range []string{
		"--log-format=json\x00--log\x00/l\x00exec\x00--process\x00/p\x00--cap\x00CAP_BPF\x00c1",
		"exec\x00-c\x00CAP_SYS_ADMIN\x00-c=x\x00c1\x00sh\x00-c\x00id",
		"--foo\x00bar\x00create\x00--bundle=/b\x00c1\x00--\x00x", "\x00-\x00--\x00=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		inv := ParseArgs(args)
		if !slices.Equal(inv.Args, strings.Split(line, "\x00")) {
			t.Fatal("the arguments were changed")
		}
		if inv.Command != "" && args[inv.commandAt] != inv.Command || inv.ID != "" && args[inv.idAt] != inv.ID {
			t.Fatalf("command or id is not where %+v says", inv)
		}
		if inv.Command != "exec" || inv.idAt < 0 {
			return
		}
		if inv.Process != "" {
			got := inv.withProcess("NEW")
			back := slices.Clone(got)
			back[inv.process.valueAt] = args[inv.process.valueAt]
			if !slices.Equal(back, args) || !strings.HasSuffix(got[inv.process.valueAt], "NEW") {
				t.Fatalf("%q became %q", args, got)
			}
		}
		none := func(string) bool { return false }
		got := inv.withPrefix(none, "INIT", "--")
		if !slices.Equal(slices.Delete(slices.Clone(got), inv.idAt+1, inv.idAt+3), args) {
			t.Fatalf("%q became %q", args, got)
		}
		filtered := inv.withPrefix(givesDropped, "INIT", "--")
		if behind := len(args) - inv.idAt - 1; !slices.Equal(filtered[len(filtered)-behind:], args[inv.idAt+1:]) {
			t.Fatalf("the command %q became %q", args[inv.idAt+1:], filtered)
		}
		if again := ParseArgs(filtered); slices.ContainsFunc(again.capabilities, func(f flag) bool { return givesDropped(f.value) }) {
			t.Fatalf("%q keeps a dropped capability", filtered)
		}
	})
}
