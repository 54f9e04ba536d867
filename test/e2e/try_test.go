package e2e_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/test/fakenet"
)

// tryDir is where commands are tried.
func (w *world) tryDir() string { return filepath.Join(w.dir, "work") }

// try runs a command of the host in a sandbox.
func (w *world) try(args ...string) outcome {
	w.t.Helper()
	cmd := w.command(append([]string{"try"}, args...)...)
	cmd.Dir = w.tryDir()
	w.launch(cmd)
	return w.finish(cmd)
}

// Not parallel: what is left is counted on the whole machine.
func TestTry(t *testing.T) {
	w := newWorld(t)
	w.policy("tried", noNetwork)
	must(t, os.Mkdir(w.tryDir(), 0o755))
	client := filepath.Join(w.tryDir(), "client")
	must(t, copyFile(binaries.client, client))
	url := "https://" + fakenet.WeatherHost + "/forecast"
	reader := &container{w: w}

	w.try("--policy", "tried", "--permissive", "--", "/bin/true") // makes the directories that stay
	before := snap(t, w.runDir)
	o := w.try("--policy", "tried", "--permissive", "--bind", "--", client, "get", url)
	if o.status != 0 {
		t.Fatal(o)
	}
	worked(t, o.results(reader)[0])
	// What it learned is on disk when it is over.
	list := w.proposals("tried")
	if len(list) != 1 || list[0].Binary != client || list[0].Status != learn.StatusPending {
		t.Fatalf("proposals %+v", list)
	}

	o = w.try("--policy", "tried", "--bind", "--", client, "get", url)
	refused(t, o.results(reader)[0], http.StatusForbidden)
	w.operate("approve", "tried", "--all")
	worked(t, w.try("--policy", "tried", "--bind", "--", client, "get", url).results(reader)[0])

	// Only what is written below the working directory is real.
	away := filepath.Join(w.dir, "away")
	o = w.try("--policy", "tried", "--permissive", "--bind", "--", "/bin/sh", "-c", "echo a > here; echo b > "+away+"; cat "+away+"; exit 7")
	if o.status != 7 || !strings.HasSuffix(o.stdout, "b\n") {
		t.Errorf("a command that writes: %s", o)
	}
	if _, err := os.Stat(filepath.Join(w.tryDir(), "here")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(away); !os.IsNotExist(err) {
		t.Errorf("a file outside of the working directory: %v", err)
	}
	if o := w.try("--policy", "tried", "--", "/bin/no-such-program"); o.status == 0 || !strings.Contains(o.stderr, "no such file") {
		t.Errorf("a command that does not exist: %s", o)
	}
	nothingLeft(t, "trying", before, w.runDir)
}
