package e2e_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/learn"
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

func (w *world) fileContainer(edits ...edit) *container {
	w.t.Helper()
	c := w.container(append([]edit{policy("files"), script(fileWork)}, edits...)...)
	for name, text := range map[string]string{
		"srv/input": "x", "srv/list/entry": "x", "srv/log": "x", "srv/tool": "#!/bin/sh\nexit 0\n", "outside/unwanted": "x",
	} {
		path := filepath.Join(c.rootfs(), name)
		must(w.t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(w.t, os.WriteFile(path, []byte(text), 0o755))
	}
	return c
}

// granted lists the paths of a policy's proposals: "r path" or "w path".
func (w *world) granted(policy string) []string {
	w.t.Helper()
	list := []string{}
	for _, p := range w.proposalsOf(learn.KindFilesystem, policy) {
		for _, path := range p.Filesystem.ReadOnly {
			list = append(list, "r "+path)
		}
		for _, path := range p.Filesystem.ReadWrite {
			list = append(list, "w "+path)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func finished(t *testing.T, o outcome) {
	t.Helper()
	if o.status != 0 || !strings.Contains(o.stdout, "finished") {
		t.Fatal(o)
	}
}

func TestFilesAreLearned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.fileContainer(permissive)
	finished(t, c.run())
	c.awaitEnd()
	if got := w.granted("files"); !slices.Equal(got, fileWorkGrants) {
		t.Errorf("proposed %q, want %q", got, fileWorkGrants)
	}
	if log := w.auditLog(c); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	if o := w.fileContainer().run(); strings.Contains(o.stdout, "finished") {
		t.Error("the workload passes without what was proposed")
	}
	w.operate("approve", "files", "--all")
	finished(t, w.fileContainer().run())
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
func (w *world) deviceContainer(work string, edits ...edit) *container {
	return w.container(append([]edit{policy("devices"), script(work), func(s *specs.Spec) {
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
	w := newWorld(t)
	c := w.deviceContainer(deviceWork, permissive)
	finished(t, c.run())
	c.awaitEnd()
	if got, want := w.granted("devices"), []string{"r /dev/only-read", "w /dev/written"}; !slices.Equal(got, want) {
		t.Errorf("proposed %q, want %q", got, want)
	}
	if log := w.auditLog(c); strings.Contains(log, "UNOBSERVED") {
		t.Errorf("something was not observed:\n%s", log)
	}
	if o := w.deviceContainer(deviceWork).run(); strings.Contains(o.stdout, "finished") {
		t.Error("the workload passes without what was proposed")
	}
	w.operate("approve", "devices", "--all")
	finished(t, w.deviceContainer(deviceWork).run())

	for _, refused := range []string{"cat /dev/another", "echo x > /dev/only-read", "stty -F /dev/only-read"} {
		if o := w.deviceContainer(refused).run(); o.status == 0 || !strings.Contains(o.stderr+o.stdout, "Permission denied") {
			t.Errorf("%s is not refused: %s", refused, o)
		}
	}
}

// What a workload does in an enforcing run must fail as it did when it was
// learned: Landlock refuses what is there, and says of the rest that it is not.
func TestMissingFileIsMissingUnderLandlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container().start()
	for _, tt := range []struct{ script, want string }{
		{"cat /outside/missing", "No such file"},
		{"cat /outside/missing/deeper", "No such file"},
		{"ls /outside", "Permission denied"},
		{"echo > /outside/new", "Permission denied"},
		{"rm /outside/missing", "No such file"},
	} {
		if o := c.exec("/bin/sh", "-c", tt.script); o.status == 0 || !strings.Contains(o.stderr+o.stdout, tt.want) {
			t.Errorf("%s: want %q: %s", tt.script, tt.want, o)
		}
	}
}

func TestFilesAfterPermissiveTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.container(policy("files"), permissive, annotate(annotations.KeyPermissiveTTL, "15s"),
		script("cat /srv/early; until [ -e /tmp/go ]; do sleep 0.1; done; cat /srv/late; touch /tmp/done; sleep 1000"))
	for _, name := range []string{"early", "late"} {
		must(t, os.WriteFile(filepath.Join(c.rootfs(), "srv", name), nil, 0o644))
	}
	c.start()
	eventually(t, patience, "the end of permissive mode", func() bool { return c.info().Mode == confine.ModeEnforcing })
	if o := c.exec("/bin/touch", "/tmp/go"); o.status != 0 {
		t.Fatal(o)
	}
	eventually(t, patience, "what is done afterwards", func() bool {
		_, err := os.Stat(filepath.Join(c.rootfs(), "tmp/done"))
		return err == nil
	})
	w.settled("files")
	if got := w.granted("files"); !slices.Equal(got, []string{"r /srv/early"}) {
		t.Errorf("proposed %q", got)
	}
}
