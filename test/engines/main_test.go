// SPDX-License-Identifier: Apache-2.0

// Package engines_test proves that each engine's own network holds around a
// sandbox: real engines with their own command lines and network plugins, on
// machines of their own in fake internets, judged by what the origins saw, by
// what answers from outside, and by what is left.
package engines_test

import (
	"archive/tar"
	"flag"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/machine"
	"openshell.ai/openshell/test/programs"
)

// patience is how long a test waits for what should happen at once on an idle
// machine.
const patience = 30 * time.Second

// built is where the programs under test are, and the image.
var built struct {
	bin    string // openshell and openshell-init
	tools  string // the engines that are built from source
	client string
	image  string // a root file system, packed
	tag    string // what names on the whole machine begin with
}

func TestMain(m *testing.M) {
	machine.Main()
	if isHook() {
		os.Exit(runHook())
	}
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "engines: real containers need root")
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "eng-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		return 1
	}
	return m.Run()
}

func prepare(dir string) error {
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
	built.client = filepath.Join(dir, "client")
	if err := programs.Build(built.client, "../client"); err != nil {
		return err
	}
	built.image = filepath.Join(dir, "image.tar")
	return writeImage(built.image, built.client)
}

const (
	clientPath = "/usr/bin/client"
	bundlePath = "/etc/ssl/certs/ca-certificates.crt" // the image's own
	busybox    = "/bin/busybox"
)

// writeImage packs a root file system of busybox and the network client.
func writeImage(path, client string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	for _, dir := range []string{"bin", "dev", "etc", "etc/ssl", "etc/ssl/certs", "proc", "sys", "tmp", "usr", "usr/bin", "run"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for name, from := range map[string]string{busybox: busybox, clientPath: client, bundlePath: bundlePath} {
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name[1:], Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	for _, applet := range []string{"sh", "sleep", "cat", "true"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}); err != nil {
			return err
		}
	}
	return w.Close()
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
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

func sorted(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
