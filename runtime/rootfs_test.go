// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
)

// image makes a bundle with a root file system: "path" is a program, "path=text"
// a file, "path/" a directory, "path -> target" a link, "path|" a named pipe.
func image(t *testing.T, entries ...string) (bundle string) {
	t.Helper()
	bundle = t.TempDir()
	for _, e := range append(entries, "rootfs/") {
		name, target, link := strings.Cut(e, " -> ")
		name, text, file := strings.Cut(name, "=")
		full := filepath.Join(bundle, strings.TrimSuffix(name, "|"))
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(target, full)
		case file:
			err = os.WriteFile(full, []byte(text), 0o644)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(full, 0o755)
		case strings.HasSuffix(name, "|"):
			err = unix.Mkfifo(full, 0o644)
		default:
			err = os.WriteFile(full, []byte("#!"), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return bundle
}

func treeOf(t *testing.T, bundle string, mounts ...specs.Mount) tree {
	t.Helper()
	return specTree(t, bundle, &specs.Spec{Root: &specs.Root{Path: "rootfs"}, Mounts: mounts})
}

func specTree(t *testing.T, bundle string, spec *specs.Spec) tree {
	t.Helper()
	files, err := newTree(bundle, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.close)
	return files
}

// emptyTree is a spec's over an empty root file system.
func emptyTree(t *testing.T, spec *specs.Spec) tree {
	t.Helper()
	return specTree(t, "/", &specs.Spec{Root: &specs.Root{Path: t.TempDir()}, Mounts: spec.Mounts})
}

func bindMount(source, destination string) specs.Mount {
	return specs.Mount{Type: "none", Source: source, Destination: destination, Options: []string{"rbind"}}
}

func TestCheckProgram(t *testing.T) {
	bundle := image(t, "rootfs/bin/sh", "rootfs/bin/text=x", "rootfs/bin/dir/", "rootfs/usr/local/bin/tool", "rootfs/usr/bin/env",
		"rootfs/sbin -> usr/bin", "rootfs/bin/abs -> /usr/bin/env", "rootfs/bin/up -> ../../../../../usr/bin/env",
		"rootfs/bin/loop -> loop", "rootfs/bin/dangling -> /nowhere", "rootfs/bin/a -> b", "rootfs/bin/b -> /nix/store/sh",
		"rootfs/bin/host -> /etc/passwd", "rootfs/var/run -> /run", "nix/store/sh", "nix/store/in -> /bin/sh", "nix/none=x")
	nix := bindMount("nix", "/nix")
	tests := []struct {
		name   string
		args   string
		cwd    string
		path   string
		mounts []specs.Mount
		want   string // in the error; "" for none
	}{
		{"absolute", "/bin/sh", "/", "", nil, ""},
		{"missing", "/bin/zsh", "/", "", nil, `exec: "/bin/zsh": stat /bin/zsh: no such file or directory`},
		{"not executable", "/bin/text", "/", "", nil, `exec: "/bin/text": permission denied`},
		{"directory", "/bin/dir", "/", "", nil, `exec: "/bin/dir": is a directory`},
		{"below a file", "/bin/sh/x", "/", "", nil, "not a directory"},
		{"relative to cwd", "./sh", "/bin", "", nil, ""},
		{"relative to another cwd", "./sh", "/usr", "", nil, "no such file"},
		{"relative above cwd", "../bin/sh", "/usr", "", nil, ""},
		{"in PATH", "tool", "/", "/bin:/usr/local/bin", nil, ""},
		{"not in PATH", "tool", "/", "/bin:/sbin", nil, `exec: "tool": executable file not found in $PATH`},
		{"not executable in PATH", "text", "/", "/bin", nil, "executable file not found in $PATH"},
		{"no PATH", "sh", "/", "", nil, "executable file not found in $PATH"},
		{"relative PATH", "sh", "/bin", ".", nil, ""},
		{"linked directory", "/sbin/env", "/", "", nil, ""},
		{"absolute link", "/bin/abs", "/", "", nil, ""},
		{"link above the root", "/bin/up", "/", "", nil, ""},
		{"link to the host's file", "/bin/host", "/", "", nil, "no such file"},
		{"loop", "/bin/loop", "/", "", nil, "too many levels"},
		{"dangling", "/bin/dangling", "/", "", nil, "no such file"},

		{"on a bind mount", "/nix/store/sh", "/", "", []specs.Mount{nix}, ""},
		{"missing on a bind mount", "/nix/store/zsh", "/", "", []specs.Mount{nix}, "no such file"},
		{"chain of links onto a mount", "/bin/a", "/", "", []specs.Mount{nix}, ""},
		{"link off a mount", "/nix/store/in", "/", "", []specs.Mount{nix}, ""},
		{"hidden by a mount", "/bin/sh", "/", "", []specs.Mount{bindMount("nix/store", "/bin")}, ""},
		{"hidden by an empty mount", "/bin/text", "/", "", []specs.Mount{bindMount("nix/store", "/bin/")}, "no such file"},
		{"later mount hides the earlier", "/nix/store/sh", "/", "", []specs.Mount{nix, bindMount("rootfs", "/nix")}, "no such file"},
		{"earlier mount below a later", "/nix/store/sh", "/", "", []specs.Mount{bindMount("rootfs", "/nix/store"), nix}, ""},
		{"one file", "/opt/x", "/", "", []specs.Mount{bindMount("nix/store/sh", "/opt/x")}, ""},
		{"mounted through a link", "/run/x/sh", "/", "", []specs.Mount{bindMount("nix/store", "/var/run/x")}, ""},
		{"relative destination", "/opt/x/sh", "/", "", []specs.Mount{bindMount("nix/store", "opt/x")}, ""},
		{"on a file system to come", "/tmp/x", "/", "", []specs.Mount{{Type: "tmpfs", Destination: "/tmp"}}, ""},
		{"through a file system to come", "x", "/", "/tmp/bin", []specs.Mount{{Type: "tmpfs", Destination: "/tmp"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &specs.Process{Args: []string{tt.args}, Cwd: tt.cwd, Env: []string{"PATH=/overridden"}}
			if tt.path != "" {
				p.Env = append(p.Env, "PATH="+tt.path)
			}
			err := treeOf(t, bundle, tt.mounts...).checkProgram(p)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), bundle) {
				t.Errorf("error %v names the host's path", err)
			}
		})
	}
}

func TestMountPoints(t *testing.T) {
	bundle := image(t, "rootfs/etc/passwd=x", "rootfs/dev/", "rootfs/opt -> /data/opt", "rootfs/loop -> loop")
	for _, tt := range []struct {
		name, destination string
		mounts            []specs.Mount
		want              []string
	}{
		{"one", "/etc/x", nil, []string{"/etc/x"}},
		{"on a mount to come", "/run/x", []specs.Mount{{Type: "tmpfs", Destination: "/run"}}, nil},
		{"on a bind mount", "/etc/x", []specs.Mount{bindMount("/srv", "/etc")}, nil},
		{"behind a link", "/opt/x", nil, []string{"/data/opt/x"}},
		{"behind a link onto a mount", "/opt/x", []specs.Mount{{Type: "tmpfs", Destination: "/data"}}, nil},
	} {
		if got, err := treeOf(t, bundle, tt.mounts...).mountPoints(tt.destination); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	if got, err := treeOf(t, bundle).mountPoints("/loop/x"); err == nil {
		t.Errorf("a loop: %q", got)
	}
}

func TestResolverOf(t *testing.T) {
	hosts := resolverOf(treeOf(t, image(t))).Servers
	bundle := image(t, "engine=nameserver 192.0.2.1\nsearch Example.ORG.\n", "rootfs/etc/resolv.conf=nameserver 203.0.113.9\nsearch image.test\n")
	got := resolverOf(treeOf(t, bundle, bindMount("engine", "/etc/resolv.conf")))
	if !slices.Equal(got.Servers, []string{"192.0.2.1"}) || !slices.Equal(got.Search, []string{"example.org"}) {
		t.Errorf("the engine's: %+v", got)
	}
	// An image must not choose who answers for the allowed hosts.
	got = resolverOf(treeOf(t, bundle))
	if !slices.Equal(got.Servers, hosts) || !slices.Equal(got.Search, []string{"image.test"}) {
		t.Errorf("the image's: %+v, the host has %q", got, hosts)
	}
	got = resolverOf(treeOf(t, image(t, "rootfs/etc/resolv.conf|"))) // must not hang
	if !slices.Equal(got.Servers, hosts) {
		t.Errorf("a named pipe: %+v", got)
	}
	got = resolverOf(treeOf(t, image(t, "engine=nameserver 192.0.2.1", "rootfs/etc/resolv.conf -> ../run/x/stub.conf"), bindMount("engine", "/etc/resolv.conf")))
	if !slices.Equal(got.Servers, []string{"192.0.2.1"}) {
		t.Errorf("mounted over a link: %+v", got)
	}
}

// The image's links must not make a file of a volume the engine's.
func TestEngineFiles(t *testing.T) {
	bundle := image(t, "engine=192.0.2.7 db\n", "volume/hosts=203.0.113.9 db\n", "rootfs/etc/hosts -> /data/hosts", "rootfs/data/")
	file, volume := bindMount("volume/hosts", "/data/hosts"), bindMount("volume", "/data")
	engine := bindMount("engine", "/etc/hosts")
	for _, tt := range []struct {
		name   string
		mounts []specs.Mount
		want   string
	}{
		{"a file that is mounted where the link leads", []specs.Mount{file}, ""},
		{"a volume there", []specs.Mount{volume}, ""},
		{"the engine's, over the link", []specs.Mount{engine}, "192.0.2.7 db\n"},
		{"the engine's, on the volume", []specs.Mount{volume, engine}, "192.0.2.7 db\n"},
		{"the engine's, hidden by the volume", []specs.Mount{engine, volume}, ""},
		{"the later of two", []specs.Mount{bindMount("volume/hosts", "/etc/hosts"), engine}, "192.0.2.7 db\n"},
		{"a file system to come", []specs.Mount{{Type: "tmpfs", Destination: "/etc/hosts"}}, ""},
	} {
		if got := resolverOf(treeOf(t, bundle, tt.mounts...)).Hosts; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Containers that have the same hosts file are told from those with their own.
func TestHostsFileOf(t *testing.T) {
	bundle := image(t, "engine=192.0.2.7 db\n", "other=192.0.2.8 db\n", "rootfs/etc/hosts=203.0.113.9 db\n")
	of := func(mounts ...specs.Mount) sandbox.Resolver { return resolverOf(treeOf(t, bundle, mounts...)) }
	one, again, two := of(bindMount("engine", "/etc/hosts")), of(bindMount("engine", "/etc/hosts")), of(bindMount("other", "/etc/hosts"))
	if one.Hosts != "192.0.2.7 db\n" || two.Hosts != "192.0.2.8 db\n" {
		t.Errorf("%q and %q", one.Hosts, two.Hosts)
	}
	if one.HostsFile != again.HostsFile || one.HostsFile == two.HostsFile || one.HostsFile == (rootfs.ID{}) {
		t.Errorf("%v, %v and %v", one.HostsFile, again.HostsFile, two.HostsFile)
	}
	if images := of(); images.Hosts != "" || images.HostsFile != (rootfs.ID{}) {
		t.Errorf("the image's own: %+v", images)
	}
}

func TestParseResolvConf(t *testing.T) {
	for text, want := range map[string][]string{
		"nameserver 192.0.2.1\nnameserver 2001:db8::1\n":              {"192.0.2.1", "2001:db8::1"},
		"nameserver 127.0.0.11\nnameserver ::1\nnameserver 0.0.0.0\n": nil,
		"nameserver fe80::1%eth0":                                     {"fe80::1%eth0"},
		"nameserver\nnameserver example.com\n; nameserver 192.0.2.2":  nil,
		"": nil,
	} {
		if got := parseResolvConf(text).Servers; !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch a.b. C\noptions ndots:5 timeout:x\n")
	f.Add("search .\nnameserver ::ffff:127.0.0.1\ndomain ..")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseResolvConf(text)
		for _, s := range r.Servers {
			if strings.HasPrefix(s, "127.") || s == "::1" || strings.ContainsAny(s, " \t\n") {
				t.Errorf("server %q", s)
			}
		}
		for _, d := range r.Search {
			if d == "" || strings.HasSuffix(d, ".") || d != strings.ToLower(d) {
				t.Errorf("domain %q", d)
			}
		}
	})
}

func ownerOf(t *testing.T, path string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

func TestCheckRequired(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	files := specTree(t, "/", &specs.Spec{Root: &specs.Root{Path: root},
		Mounts: []specs.Mount{{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs"}}})
	if err := files.checkRequired([]string{"/data", "/tmp/made-later"}); err != nil {
		t.Error(err)
	}
	err := files.checkRequired([]string{"/data", "/missing"})
	if err == nil || !strings.Contains(err.Error(), "/missing does not exist") {
		t.Errorf("error %v, want one that names /missing", err)
	}
}

func TestCheckExec(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/tool"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/bin/tool", filepath.Join(root, "bin/alias")); err != nil {
		t.Fatal(err)
	}
	for process, want := range map[string]string{
		`{"args":["/bin/tool"]}`:                           "",
		`{"args":["alias"],"env":["PATH=/sbin:/bin"]}`:     "",
		`{"args":["tool"],"cwd":"/","env":["PATH=/sbin"]}`: `exec: "tool": executable file not found in $PATH`,
		`{"args":["./tool"],"cwd":"/sbin"}`:                `exec: "./tool": stat ./tool: no such file or directory`,
		`{"args":["/bin"]}`:                                `exec: "/bin": is a directory`,
	} {
		err := CheckExec(rootfs.At(root), []byte(process))
		if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
			t.Errorf("%s: %v, want %q", process, err, want)
		}
	}
	if err := CheckExec(rootfs.At(filepath.Join(root, "gone")), []byte(`{"args":["tool"]}`)); err != nil {
		t.Errorf("a container that has ended: %v", err)
	}
}
