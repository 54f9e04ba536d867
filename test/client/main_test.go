// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// asClient makes the test's own program be the client, as it must be a process
// of its own to be in another network namespace as a whole.
const asClient = "CLIENT_TEST_AS_CLIENT"

func TestMain(m *testing.M) {
	if os.Getenv(asClient) != "" {
		os.Exit(dispatch(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func newNet(t *testing.T) *fakenet.Net {
	t.Helper()
	n, err := fakenet.New(fakenet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

func clientCommand(t *testing.T, ca string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{asClient + "=1", "SSL_CERT_FILE=" + ca, "SSL_CERT_DIR=/nonexistent", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// runClient runs the client in the outer namespace; n may be nil for what needs
// no network.
func runClient(t *testing.T, n *fakenet.Net, args ...string) (results []result, code int) {
	t.Helper()
	ca := ""
	if n != nil {
		ca = n.CACert()
	}
	cmd := clientCommand(t, ca, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := cmd.Start
	if n != nil {
		start = func() error { return n.Do(cmd.Start) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if status := new(exec.ExitError); errors.As(err, &status) {
		code = status.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(stdout.String()) {
		var r result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		results = append(results, r)
	}
	if code == 2 {
		t.Log(stderr.String())
	}
	return results, code
}

// runOne is runClient for a command that prints one line.
func runOne(t *testing.T, n *fakenet.Net, args ...string) (result, int) {
	t.Helper()
	results, code := runClient(t, n, args...)
	if len(results) != 1 {
		t.Fatalf("%q printed %d lines, want 1", args, len(results))
	}
	return results[0], code
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"fly"}, {"get"}, {"tcp", "-nosuch", "a:1"}, {"tcp", "a:1", "b", "c"},
		{"dns", "a", "WHAT"}, {"sleep", "long"}, {"tcp", "-e", "a:1", `\q`}, {"spawn"}} {
		if results, code := runClient(t, nil, args...); code != 2 || len(results) != 0 {
			t.Errorf("%q: exit status %d, printed %v", args, code, results)
		}
	}
}

func TestStatusAndLinks(t *testing.T) {
	n := newNet(t)
	r, code := runOne(t, n, "status")
	if code != 0 || r.Fields["NoNewPrivs"] == "" || r.Fields["Seccomp"] == "" || len(r.Fields["CapEff"]) != 16 {
		t.Errorf("status: %d %+v", code, r)
	}
	r, code = runOne(t, n, "links")
	if code != 0 || strings.Join(r.Names, " ") != "lo eth0" || !strings.Contains(r.Fields["eth0"], fakenet.OuterAddrs()[0].String()) {
		t.Errorf("links: %d %+v", code, r)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if _, code := runOne(t, nil, "write", path, "text"); code != 0 {
		t.Errorf("write: exit status %d", code)
	}
	if r, code := runOne(t, nil, "read", path); code != 0 || r.Body != "text" {
		t.Errorf("read: %d %+v", code, r)
	}
	if r, code := runOne(t, nil, "list", dir); code != 0 || strings.Join(r.Names, " ") != "file" {
		t.Errorf("list: %d %+v", code, r)
	}
	if r, code := runOne(t, nil, "read", filepath.Join(dir, "none")); code != 1 || r.OK || !strings.Contains(r.Error, "no such file") {
		t.Errorf("read of nothing: %d %+v", code, r)
	}
	if r, code := runOne(t, nil, "write", filepath.Join(dir, "no", "file")); code != 1 || r.OK {
		t.Errorf("write into nothing: %d %+v", code, r)
	}
}

func TestSequenceRunsAllAndFailsWithAny(t *testing.T) {
	results, code := runClient(t, nil, "seq", "read", "/nonexistent", ",", "sleep", "1ms", ",", "env", asClient)
	var said []string
	for _, r := range results {
		said = append(said, r.Command)
	}
	if code != 1 || strings.Join(said, " ") != "read sleep env seq" || results[2].Fields[asClient] != "1" || results[3].Error != "command 1 failed" {
		t.Errorf("%d %+v", code, results)
	}
	if results, code := runClient(t, nil, "seq", "sleep", "1ms"); code != 0 || len(results) != 2 {
		t.Errorf("%d %+v", code, results)
	}
}

func TestSpawnPassesTheStatus(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	results, code := runClient(t, nil, "spawn", self, "sleep", "1ms")
	if code != 0 || len(results) != 2 || results[0].Command != "sleep" {
		t.Errorf("%d %+v", code, results)
	}
	results, code = runClient(t, nil, "spawn", self, "read", "/nonexistent")
	if code != 1 || len(results) != 2 || results[1].Status != 1 {
		t.Errorf("%d %+v", code, results)
	}
}
