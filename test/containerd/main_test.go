// SPDX-License-Identifier: Apache-2.0

// Package containerd_test proves the shim from outside: real containerd daemons
// with real low-level runtimes, their own command line and CRI, in fake
// internets, judged by what the origins saw, by /proc and by what is left.
//
// Each pair of a daemon and a low-level runtime has a machine of its own
// (package machine), so that several can be tested at once and "nothing is left"
// can be counted on each.
package containerd_test

import (
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/machine"
	"openshell.ai/openshell/test/programs"
)

// patience is how long a test waits for what should happen at once on an idle
// machine.
const patience = time.Minute

// built is where the programs under test are, and the images.
var built struct {
	bin    string // openshell, openshell-init and the shim
	tools  string // the newer engines
	images string // an archive
	tag    string // what names on the whole machine begin with
}

func TestMain(m *testing.M) {
	machine.Main()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: real containers need root")
		os.Exit(1)
	}
	flag.Parse()
	if !isSet("test.parallel") {
		// A machine mostly waits: one for each daemon.
		if err := flag.Set("test.parallel", fmt.Sprint(len(pairs))); err != nil {
			panic(err)
		}
	}
	os.Exit(runAll(m))
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ctd-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	status := m.Run()
	for _, line := range figures {
		fmt.Println(line)
	}
	return status
}

func prepare(dir string) error {
	// What a test forgets to put into a directory of its own goes here.
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	built.tag = filepath.Base(dir)
	var err error
	if built.tools, err = programs.Engines(); err != nil {
		return err
	}
	if built.bin, err = programs.UnderTest(dir, "openshell", "openshell-init", "openshell-keeper", "containerd-shim-openshell-v1"); err != nil {
		return err
	}
	client, pause := filepath.Join(dir, "client"), filepath.Join(dir, "pause")
	if err := programs.Build(client, "../client"); err != nil {
		return err
	}
	if err := programs.Build(pause, "./pause"); err != nil {
		return err
	}
	built.images = filepath.Join(dir, "images.tar")
	return writeImages(built.images, client, pause)
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// linesOf yields the lines of a text without their ends.
func linesOf(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if !yield(strings.TrimSuffix(line, "\n")) {
				return
			}
		}
	}
}
