// SPDX-License-Identifier: Apache-2.0

// Package node is one test's node: a fake internet, a node configuration with its
// own directories, and containers on it through the real low-level runtime. It is
// for the packages of end-to-end tests one level below test, which call [Main]
// first; it owns no assertion about the product, but what helps to make one.
//
// Everything runs in a mount and a PID namespace of its own (isolate.go), so that
// "nothing is left" can be counted and nothing can outlive the tests.
package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"openshell.ai/openshell/test/programs"
)

// binaries are the programs under test, built once or taken from the directory
// that OPENSHELL_BIN names.
var binaries struct {
	openshell string
	client    string // the box of network clients that containers run
	template  string // a root file system with busybox and the client
	tag       string // what the ids of this run's containers begin with
}

// Main prepares what the tests of a package need, runs them isolated and exits.
// Every container has the client, and the programs in the directories dirs,
// below /usr/bin under their directories' names.
func Main(m *testing.M, dirs ...string) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "node: real containers need root")
		os.Exit(1)
	}
	if !isolated() {
		os.Exit(isolate())
	}
	os.Exit(runAll(m, dirs))
}

func runAll(m *testing.M, dirs []string) int {
	dir, err := os.MkdirTemp("", "e2e-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = prepare(dir, dirs)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	status := m.Run()
	if err := closeNets(); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	return status
}

func prepare(dir string, programDirs []string) error {
	// What a test forgets to put into a directory of its own goes here.
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	binaries.tag = filepath.Base(dir)
	if err := findHeld(); err != nil {
		return err
	}
	bin, err := programs.UnderTest(dir, "openshell", "openshell-init", "openshell-keeper")
	if err != nil {
		return err
	}
	binaries.openshell = filepath.Join(bin, "openshell")
	binaries.client = filepath.Join(dir, "client")
	if err := programs.Build(binaries.client, "../client"); err != nil {
		return err
	}
	binaries.template = filepath.Join(dir, "template")
	if err := makeTemplate(binaries.template); err != nil {
		return err
	}
	for _, dir := range programDirs {
		if err := programs.Build(filepath.Join(binaries.template, "usr/bin", filepath.Base(dir)), dir); err != nil {
			return err
		}
	}
	return nil
}

// HostClient is where the client is on the host.
func HostClient() string { return binaries.client }

const busybox = "/bin/busybox"

// agents are further names of the client, so that there are several binaries to
// make rules for.
var agents = []string{"/usr/bin/agent", "/usr/bin/fetcher", "/usr/bin/pusher"}

// makeTemplate makes the root file system that every container's is a copy of.
func makeTemplate(root string) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "usr/bin", "data", "outside", "srv"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	text, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets (a static busybox must be at %s): %w", busybox, err)
	}
	if err := CopyFile(busybox, filepath.Join(root, "bin/busybox")); err != nil {
		return err
	}
	for applet := range Lines(string(text)) {
		err := os.Symlink("busybox", filepath.Join(root, "bin", applet))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, path := range append([]string{ClientPath}, agents...) {
		if err := CopyFile(binaries.client, filepath.Join(root, path)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n",
		"group":  "root:x:0:\nuser:x:1000:\n",
		"hosts":  "127.0.0.1 localhost\n::1 localhost\n",
		// Never asked: the sandbox answers in its place.
		"resolv.conf": "nameserver 192.0.2.53\nsearch cluster.example\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func CopyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// cloneTree makes a copy of the template whose files are links: nothing in a
// test writes into a file that the template has.
func cloneTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			return os.Mkdir(target, 0o755)
		}
		return os.Link(path, target)
	})
}
