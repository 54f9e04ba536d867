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

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/test/fakenet"
)

// errand is what a real client does, with other ids, versions and digests on each
// run: $RUN is its number.
type errand struct {
	name     string
	needs    []string // commands
	required bool     // hack/deps installs them
	script   string
	proposed []string // paths that are granted: "r path" or "w path"
}

var errands = []errand{
	{name: "curl", needs: []string{"curl", "sha256sum"}, required: true, script: `
api=https://api.github.example/repos/acme/rocket
for i in 1 2 3; do curl -fsS $api/issues/$((1000 * RUN + i)) -o issue-$i.json; done
curl -fsS $api/git/blobs/$(echo $RUN | sha256sum | cut -c 1-40) -o blob.json
curl -fsS --json '{}' $api/issues/$((1000 * RUN))/comments -o comment.json
mkdir -p ~/.cache/curl; curl -fsS --etag-save ~/.cache/curl/etag-$RUN https://api.weather.example/forecast -o /dev/null
grep -q rocket *.json
`},
	{name: "git", needs: []string{"git"}, required: true, script: `
git clone -q https://git.example/project.git
cd project; git config user.name a; git config user.email a@git.example
date +%N >> README.md; git commit -qam change; git push -q
`},
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
`},
	{name: "pip", needs: []string{"pip"}, script: `
python3 -m pip install -q --user --break-system-packages --index-url https://pypi.example/simple fakenet-greeting
python3 -c 'import fakenet_greeting as g; assert g.greet() == "hello from fakenet"'
`},
	{name: "npm", needs: []string{"npm", "node"}, script: `
npm install --registry https://npm.example --no-audit --no-fund fakenet-greeting
node -e 'require("assert").equal(require("fakenet-greeting")(), "hello from fakenet")'
`},
	{name: "go", needs: []string{"go"}, script: `
export GOPROXY=https://goproxy.example GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local
printf 'module example.com/m\ngo 1.21\n' > go.mod
printf 'package main\nimport "code.example/greeting"\nfunc main() { println(greeting.Text) }\n' > main.go
go get -v code.example/greeting@latest
go build -o greet .
./greet
`},
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

// host makes a container of the host's own programs: its root is a copy of the
// host's that is made anew each time, with an empty home and an empty working
// directory.
func (w *world) host(edits ...edit) *container {
	w.t.Helper()
	c := w.container(append([]edit{func(s *specs.Spec) {
		s.Process.Cwd = "/workspace"
		s.Process.Env = []string{"PATH=" + hostPath, "HOME=/root", "LANG=C.UTF-8"}
	}}, edits...)...)
	must(w.t, os.RemoveAll(c.rootfs()))
	layers := filepath.Join(c.bundle, "layers")
	for _, dir := range []string{layers, c.rootfs()} {
		must(w.t, os.Mkdir(dir, 0o755))
	}
	must(w.t, unix.Mount("layers", layers, "tmpfs", 0, "mode=0755"))
	w.t.Cleanup(func() { unmount(w.t, layers) })
	upper := filepath.Join(layers, "upper")
	for _, dir := range []string{"", "root", "root/.cache", "root/.ssh", "workspace", "srv"} {
		must(w.t, os.Mkdir(filepath.Join(upper, dir), 0o755))
	}
	must(w.t, unix.Setxattr(filepath.Join(upper, "root"), "trusted.overlay.opaque", []byte("y"), 0))
	must(w.t, os.WriteFile(filepath.Join(upper, "root/.ssh/id_rsa"), []byte("secret"), 0o600))
	must(w.t, os.Mkdir(filepath.Join(layers, "work"), 0o755))
	must(w.t, unix.Mount("overlay", c.rootfs(), "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s/work", upper, layers)))
	w.t.Cleanup(func() { unmount(w.t, c.rootfs()) })
	return c
}

func unmount(t *testing.T, dir string) {
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
}

func (e *errand) edits(run int) []edit {
	return []edit{policy(e.name), args("/bin/bash", "-ec", e.script), func(s *specs.Spec) {
		s.Process.Env = append(s.Process.Env, fmt.Sprintf("RUN=%d", run))
	}}
}

func TestLoopOnRealClients(t *testing.T) {
	for _, e := range errands {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, name := range e.needs {
				if _, err := exec.LookPath(name); err != nil && !e.required {
					t.Skipf("the host has no %s", name)
				}
				wantCommand(t, name)
			}
			e.loop(t)
		})
	}
}

func (e *errand) loop(t *testing.T) {
	w := newWorld(t)
	first := w.host(append(e.edits(1), permissive)...)
	if o := first.run(); o.status != 0 {
		t.Fatalf("permissive: %s", o)
	}
	first.awaitEnd()
	if log := w.auditLog(first); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	t.Log(w.operate("proposals", e.name))
	t.Log(w.granted(e.name))
	t.Log(w.operate("approve", e.name, "--all"))
	for run := range 2 {
		c := w.host(e.edits(1 + run)...)
		if o := c.run(); o.status != 0 {
			t.Errorf("enforcing, run %d: %s", run, o)
		}
		c.awaitEnd()
		if denied := w.denied(c); len(denied) > 0 {
			t.Errorf("denials: %+v", denied)
		}
		for _, kind := range []string{learn.KindNetwork, learn.KindFilesystem} {
			if i := slices.IndexFunc(w.proposalsOf(kind, e.name), func(p learn.Proposal) bool { return p.Status != learn.StatusApproved }); i >= 0 {
				t.Errorf("the enforcing run proposed %+v", w.proposalsOf(kind, e.name)[i])
			}
		}
		w.net.Release()
	}
	_ = fakenet.WeatherHost
}
