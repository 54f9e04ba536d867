// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/node"
)

// errand is what a real client does, with other ids, versions and digests on each
// run: $RUN is its number.
type errand struct {
	name     string
	needs    []string // commands
	required bool     // hack/deps installs them
	script   string
	// files are the paths that have to be granted: "r path" or "w path". Of clients
	// that are not required, whose versions differ, it is the most that may be; nil
	// where it depends on the host.
	files []string
}

var errands = []errand{
	{name: "curl", needs: []string{"curl", "sha256sum"}, required: true, script: `
api=https://api.github.example/repos/acme/rocket
for i in 1 2 3; do curl -fsS $api/issues/$((1000 * RUN + i)) -o issue-$i.json; done
curl -fsS $api/git/blobs/$(echo $RUN | sha256sum | cut -c 1-40) -o blob.json
curl -fsS --json '{}' $api/issues/$((1000 * RUN))/comments -o comment.json
mkdir -p ~/.cache/curl; curl -fsS --etag-save ~/.cache/curl/etag-$RUN https://api.weather.example/forecast -o /dev/null
grep -q rocket *.json
`, files: []string{"w /root/.cache"}},
	{name: "git", needs: []string{"git"}, required: true, script: `
git clone -q https://git.example/project.git
cd project; git config user.name a; git config user.email a@git.example
date +%N >> README.md; git commit -qam change; git push -q
`, files: []string{}},
	{name: "python", needs: []string{"python3"}, required: true, script: `
python3 - <<'PYTHON'
import json, os, pathlib, tempfile, urllib.request, uuid
run = int(os.environ["RUN"])
cache = pathlib.Path.home() / ".cache/agent" / str(uuid.uuid4())
cache.mkdir(parents=True)
for number in range(3):
    url = f"https://api.github.example/repos/acme/rocket/issues/{1000 * run + number}"
    (cache / f"{number}.json").write_bytes(urllib.request.urlopen(url).read())
request = urllib.request.Request(f"https://api.weather.example/v1/reports/{uuid.uuid4()}", b"{}", method="PUT")
urllib.request.urlopen(request)
with tempfile.NamedTemporaryFile(dir=pathlib.Path.home() / ".cache", delete=False) as f:
    f.write(b"x")
os.rename(f.name, cache / "renamed")
PYTHON
`, files: []string{"w /root/.cache"}},
	{name: "pip", needs: []string{"pip"}, script: `
export PIP_BREAK_SYSTEM_PACKAGES=1
python3 -m pip install -q --user --index-url https://pypi.example/simple fakenet-greeting
python3 -c 'import fakenet_greeting as g; assert g.greet() == "hello from fakenet"'
`, files: []string{"w /root/.cache", "w /root/.local"}},
	{name: "npm", needs: []string{"npm", "node"}, script: `
npm install --registry https://npm.example --no-audit --no-fund fakenet-greeting
node -e 'require("assert").equal(require("fakenet-greeting")(), "hello from fakenet")'
`, files: []string{"w /root/.npm"}},
	{name: "go", needs: []string{"go"}, script: `
export GOPROXY=https://goproxy.example GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local
printf 'module example.com/m\ngo 1.21\n' > go.mod
go get code.example/greeting@latest
# Not a program: to compile the runtime takes a minute.
go build -buildmode=archive -o greeting.a code.example/greeting
test -s greeting.a
`, files: []string{"w /root/.cache", "w /root/.config", "w /root/go"}},
	{name: "apt", needs: []string{"apt-get"}, script: `
echo 'deb [trusted=yes] https://deb.example/ ./' > sources.list
apt="apt-get -q -o Dir::Etc::sourcelist=$PWD/sources.list -o Dir::Etc::sourceparts=/dev/null"
$apt update
$apt download fakenet-greeting
dpkg-deb -x fakenet-greeting_*.deb extracted
grep -q hello extracted/usr/share/greeting/text
`},
}

// hostPath is where the host's programs are, without what a user has of his own.
const hostPath = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// homes are the directories that a user's home has, since one that is not there can
// only be made with write access to all of the home.
var homes = []string{"root/.cache", "root/.config", "root/.local", "root/.npm", "root/.ssh", "root/go"}

// hostContainer makes a container of the host's own programs: its root is a copy of the
// host's that is made anew each time, with an empty home and an empty working
// directory.
func hostContainer(w *node.World, edits ...node.Edit) *node.Container {
	w.T.Helper()
	c := w.Container(append([]node.Edit{func(s *specs.Spec) {
		s.Process.Cwd = "/workspace"
		s.Process.Env = []string{"PATH=" + hostPath, "HOME=/root", "LANG=C.UTF-8"}
		s.Hostname = "localhost"
	}}, edits...)...)
	node.Must(w.T, os.RemoveAll(c.Rootfs()))
	layers := filepath.Join(c.Bundle, "layers")
	for _, dir := range []string{layers, c.Rootfs()} {
		node.Must(w.T, os.Mkdir(dir, 0o755))
	}
	node.Must(w.T, unix.Mount("layers", layers, "tmpfs", 0, "mode=0755"))
	w.T.Cleanup(func() { unmount(w.T, layers) })
	upper := filepath.Join(layers, "upper")
	node.Must(w.T, os.Mkdir(upper, 0o755))
	for _, dir := range append([]string{"root", "workspace", "srv"}, homes...) {
		node.Must(w.T, os.Mkdir(filepath.Join(upper, dir), 0o755))
	}
	node.Must(w.T, unix.Setxattr(filepath.Join(upper, "root"), "trusted.overlay.opaque", []byte("y"), 0))
	node.Must(w.T, os.WriteFile(filepath.Join(upper, "root/.ssh/id_rsa"), []byte("secret"), 0o600))
	node.Must(w.T, os.Mkdir(filepath.Join(layers, "work"), 0o755))
	node.Must(w.T, unix.Mount("overlay", c.Rootfs(), "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s/work", upper, layers)))
	w.T.Cleanup(func() { unmount(w.T, c.Rootfs()) })
	return c
}

func unmount(t *testing.T, dir string) {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

func (e *errand) edits(run int) []node.Edit {
	return []node.Edit{node.Policy(e.name), node.Args("/bin/bash", "-ec", e.script), func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, fmt.Sprintf("RUN=%d", run))
	}}
}

func TestLoopOnRealClients(t *testing.T) {
	for _, e := range errands {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range e.needs {
				switch {
				case e.required:
					wantCommand(t, name)
				case !onHost(name):
					t.Skipf("the host has no %s in %s", name, hostPath)
				}
			}
			e.loop(t)
		})
	}
}

// loop proves that what a permissive run taught is what later runs need, also
// when every id, version and digest is another one, and that Landlock holds them to it.
func (e *errand) loop(t *testing.T) {
	w := node.New(t)
	first := hostContainer(w, append(e.edits(1), node.Permissive)...)
	if o := first.Run(); o.Status != 0 {
		t.Fatalf("permissive: %s", o)
	}
	first.AwaitEnd()
	if log := w.AuditLog(first); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	files := w.Granted(e.name)
	if !e.expects(files) {
		t.Errorf("paths proposed: %q, want %q", files, e.files)
	}
	diff := w.Operate("approve", e.name, "--all")
	for run := 1; run <= 2; run++ {
		c := hostContainer(w, e.edits(run)...)
		if o := c.Run(); o.Status != 0 {
			t.Errorf("enforcing, run %d: %s\napproved: %s", run, o, diff)
		}
		c.AwaitEnd()
		if denied := w.Denied(c); len(denied) > 0 {
			t.Errorf("enforcing, run %d: denials: %+v", run, denied)
		}
		for _, p := range append(w.Proposals(e.name), w.ProposalsOf(learn.KindFilesystem, e.name)...) {
			if p.Status != learn.StatusApproved {
				t.Errorf("enforcing, run %d: %s is %s: %s", run, p.ID, p.Status, p.Rationale)
			}
		}
		w.Net.Release()
	}
	confinedTo(w, e.name)
}

// expects reports whether paths are what the errand needs.
func (e *errand) expects(paths []string) bool {
	switch {
	case e.files == nil:
		return true
	case e.required:
		return slices.Equal(paths, e.files)
	}
	return !slices.ContainsFunc(paths, func(p string) bool {
		return !slices.Contains(e.files, p) && !slices.Contains(e.files, "w"+p[1:])
	})
}

// onHost reports whether a container of the host's programs has a command.
func onHost(name string) bool {
	return slices.ContainsFunc(filepath.SplitList(hostPath), func(dir string) bool {
		_, err := exec.LookPath(filepath.Join(dir, name))
		return err == nil
	})
}

// confinedTo tries what no errand did, under the policy that was learned.
func confinedTo(w *node.World, name string) {
	w.T.Helper()
	const escapes = `
no() { if (eval "$1") 2> err; then echo "done: $1"; elif ! grep -qi 'permission denied' err; then echo "failed otherwise: $1: $(cat err)"; fi; }
no 'echo x > /srv/file'
no 'echo x >> /etc/profile'
no 'cat /root/.ssh/id_rsa'
no 'echo x > /root/.ssh/authorized_keys'
no 'echo x > /root/.bashrc'
no 'ls /srv'
echo x > here
`
	c := hostContainer(w, node.Policy(name), node.Args("/bin/bash", "-ec", escapes))
	if o := c.Run(); o.Status != 0 || o.Stdout != "" {
		w.T.Errorf("what was not learned: %s", o)
	}
	c.AwaitEnd()
}
