// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// fileWork does everything to files that Landlock tells apart, where the default
// policy lets nobody, and some where it does.
const fileWork = `set -e
cat /srv/input /etc/passwd > /dev/null
ls /srv/list > /dev/null
echo a >> /srv/log
mkdir /data/made
echo b > /data/made/new
echo c > /data/old-name
mv /data/old-name /data/new-name
rm /outside/unwanted
/srv/tool
echo d > /tmp/scratch
cat /outside/missing 2> /dev/null || true
echo finished
`

// fileWorkGrants is what that needs of a policy.
var fileWorkGrants = []string{"r /srv/input", "r /srv/list", "r /srv/tool", "w /data", "w /outside", "w /srv/log"}

func fileContainer(w *node.World, edits ...node.Edit) *node.Container {
	w.T.Helper()
	c := w.Container(append([]node.Edit{node.Policy("files"), node.Script(fileWork)}, edits...)...)
	for name, text := range map[string]string{
		"srv/input": "x", "srv/list/entry": "x", "srv/log": "x", "srv/tool": "#!/bin/sh\nexit 0\n", "outside/unwanted": "x",
	} {
		path := filepath.Join(c.Rootfs(), name)
		node.Must(w.T, os.MkdirAll(filepath.Dir(path), 0o755))
		node.Must(w.T, os.WriteFile(path, []byte(text), 0o755))
	}
	return c
}

func finished(t *testing.T, o node.Outcome) {
	t.Helper()
	if o.Status != 0 || !strings.Contains(o.Stdout, "finished") {
		t.Fatal(o)
	}
}

func TestFilesAreLearned(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := fileContainer(w, node.Permissive)
	finished(t, c.Run())
	c.AwaitEnd()
	if got := w.Granted("files"); !slices.Equal(got, fileWorkGrants) {
		t.Errorf("proposed %q, want %q", got, fileWorkGrants)
	}
	if log := w.AuditLog(c); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	if o := fileContainer(w).Run(); strings.Contains(o.Stdout, "finished") {
		t.Error("the workload passes without what was proposed")
	}
	w.Operate("approve", "files", "--all")
	finished(t, fileContainer(w).Run())
}

// deviceWork writes to one device and asks it what only a terminal can tell, and
// reads from another. It is not told EACCES, which is Landlock's.
const deviceWork = `set -e
echo x > /dev/written
stty -F /dev/written 2> /tmp/answer && exit 1
grep -q 'Inappropriate ioctl' /tmp/answer
cat /dev/only-read
echo finished
`

// deviceContainer has devices that are not in the baseline: the null device by
// other names.
func deviceContainer(w *node.World, work string, edits ...node.Edit) *node.Container {
	return w.Container(append([]node.Edit{node.Policy("devices"), node.Script(work), func(s *specs.Spec) {
		mode := os.FileMode(0o666)
		for _, name := range []string{"written", "only-read", "another"} {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{
				Path: "/dev/" + name, Type: "c", Major: 1, Minor: 3, FileMode: &mode,
			})
		}
	}}, edits...)...)
}

func TestFilesThatAreDevices(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := deviceContainer(w, deviceWork, node.Permissive)
	finished(t, c.Run())
	c.AwaitEnd()
	if got, want := w.Granted("devices"), []string{"r /dev/only-read", "w /dev/written"}; !slices.Equal(got, want) {
		t.Errorf("proposed %q, want %q", got, want)
	}
	if log := w.AuditLog(c); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	if o := deviceContainer(w, deviceWork).Run(); strings.Contains(o.Stdout, "finished") {
		t.Error("the workload passes without what was proposed")
	}
	w.Operate("approve", "devices", "--all")
	finished(t, deviceContainer(w, deviceWork).Run())

	for _, refused := range []string{"cat /dev/another", "echo x > /dev/only-read", "stty -F /dev/only-read"} {
		if o := deviceContainer(w, refused).Run(); o.Status == 0 || !strings.Contains(o.Stderr+o.Stdout, "Permission denied") {
			t.Errorf("%s is not refused: %s", refused, o)
		}
	}
}

// What a workload does in an enforcing run must fail as it did when it was
// learned: Landlock refuses what is there, and says of the rest that it is not.
func TestMissingFileIsMissingUnderLandlock(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container().Start()
	for _, tt := range []struct{ script, want string }{
		{"cat /outside/missing", "No such file"},
		{"cat /outside/missing/deeper", "No such file"},
		{"ls /outside", "Permission denied"},
		{"echo > /outside/new", "Permission denied"},
		{"rm /outside/missing", "No such file"},
	} {
		if o := c.Exec("/bin/sh", "-c", tt.script); o.Status == 0 || !strings.Contains(o.Stderr+o.Stdout, tt.want) {
			t.Errorf("%s: want %q: %s", tt.script, tt.want, o)
		}
	}
}

func TestFilesAfterPermissiveTime(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	c := w.Container(node.Policy("files"), node.Permissive, node.Annotate(annotations.KeyPermissiveTTL, "15s"),
		node.Script("cat /srv/early; until [ -e /tmp/go ]; do sleep 0.1; done; cat /srv/late; touch /tmp/done; sleep 1000"))
	for _, name := range []string{"early", "late"} {
		node.Must(t, os.WriteFile(filepath.Join(c.Rootfs(), "srv", name), nil, 0o644))
	}
	c.Start()
	node.Eventually(t, node.Patience, "the end of permissive mode", func() bool { return c.Info().Mode == confine.ModeEnforcing })
	if o := c.Exec("/bin/touch", "/tmp/go"); o.Status != 0 {
		t.Fatal(o)
	}
	node.Eventually(t, node.Patience, "what is done afterwards", func() bool {
		_, err := os.Stat(filepath.Join(c.Rootfs(), "tmp/done"))
		return err == nil
	})
	w.Settled("files")
	if got := w.Granted("files"); !slices.Equal(got, []string{"r /srv/early"}) {
		t.Errorf("proposed %q", got)
	}
}

// What replaces a file in /etc, or makes one in /run, has another name each time: the directory is proposed, told as
// what it is, and taken by nobody unseen. Enforcing, the denial is enough for that.
func TestSensitiveDirectories(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/atomic writes in /etc, /run")
	w := node.New(t)
	work := func(edits ...node.Edit) *node.Container {
		c := w.Container(append([]node.Edit{node.Policy("sensitive"), node.Script("set -e\nsed -i s/a/b/ /etc/x\necho 1 >/run/x.pid\necho finished")}, edits...)...)
		for _, name := range []string{"etc/x", "run/there"} {
			path := filepath.Join(c.Rootfs(), name)
			node.Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
			node.Must(t, os.WriteFile(path, []byte("a\n"), 0o644))
		}
		return c
	}
	c := work(node.Permissive)
	finished(t, c.Run())
	c.AwaitEnd()
	if got, want := w.Granted("sensitive"), []string{"w /etc", "w /run"}; !slices.Equal(got, want) {
		t.Errorf("proposed %q, want %q", got, want)
	}
	contains(t, "proposals", w.Operate("proposals", "sensitive"), "pending, sensitive")
	o := w.OpenShell("approve", "sensitive", "--all")
	contains(t, "approve --all", o.Stderr, "what it grants whole is sensitive", "--include-sensitive")
	if o.Status != 1 || strings.Contains(o.Stdout, "approved ") {
		t.Errorf("approve --all: %s", o)
	}
	if o := work().Run(); strings.Contains(o.Stdout, "finished") || !strings.Contains(o.Stdout+o.Stderr, "ermission denied") {
		t.Errorf("passes unapproved: %s", o)
	}
	contains(t, "approve --all --include-sensitive", w.Operate("approve", "sensitive", "--all", "--include-sensitive"), "accounts, and the configuration", "sockets and state")
	finished(t, work().Run())
}
