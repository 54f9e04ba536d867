// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runc/libcontainer/system"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/netns"
)

// nodeVariable names the directory of the node whose supervisor this test binary
// is, see nodeConfig.
const nodeVariable = "OPENSHELL_TEST_NODE"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == SuperviseCommand {
		if err := Supervise(nodeConfig(os.Getenv(nodeVariable))); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == executeCommand {
		executeAgain(os.Args[2])
	}
	os.Exit(m.Run())
}

func nodeConfig(dir string) *config.Config {
	c := config.Default()
	c.StateDir, c.RunDir, c.PolicyDir = filepath.Join(dir, "state"), filepath.Join(dir, "run"), filepath.Join(dir, "policies")
	return c
}

// newNode returns the configuration of a node that only this test uses.
func newNode(t *testing.T) *config.Config {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(nodeVariable, dir)
	c := nodeConfig(dir)
	if err := os.MkdirAll(c.PolicyDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

const oneRule = `version: 1
network_policies:
  web:
    name: web
    endpoints: [{host: example.com, port: 443}]
    binaries: [{path: /usr/bin/curl}]
`

func writePolicy(t *testing.T, c *config.Config, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.PolicyDir, name+".yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// request asks for a sandbox of a container whose low-level runtime keeps its
// state in root. This process is the creator: it does not end.
func request(root, id string) Request {
	return Request{
		ID: IDFor(root, id), Policy: id, Outer: Outer{Kind: OuterHost}, Creator: os.Getpid(),
		Container: Container{ID: id, Root: root},
	}
}

func start(t *testing.T, c *config.Config, r Request) *Sandbox {
	t.Helper()
	s, err := Start(c, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// process starts a process to stand for a container's first one.
func newProcess(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// writeState writes a low-level runtime's state of a container.
func writeState(t *testing.T, kind, root, id string, pid int) {
	t.Helper()
	stat, err := system.Stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	file, text := "state.json", fmt.Sprintf(`{"id":%q,"init_process_pid":%d,"init_process_start":%d,"config":{"novel":[{}]}}`, id, pid, stat.StartTime)
	if kind == "crun" {
		file, text = "status", fmt.Sprintf(`{"pid":%d,"process-start-time":%d,"cgroup-path":"/x"}`, pid, stat.StartTime)
	}
	dir := filepath.Join(root, id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what must come, on a machine that is
// busy with other things.
const patience = time.Minute

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still not: " + what)
		}
	}
}

func hasEnded(s *Sandbox) func() bool {
	return func() bool {
		select {
		case <-s.Done():
			return true
		default:
			return false
		}
	}
}

func missing(path string) func() bool {
	return func() bool {
		_, err := os.Lstat(path)
		return os.IsNotExist(err)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	return len(openFileNames(t))
}

func openFileNames(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, _ := os.Readlink("/proc/self/fd/" + e.Name())
		names = append(names, name)
	}
	return names
}

// noLeak fails where the test leaves goroutines or descriptors.
func noLeak(t *testing.T) {
	t.Helper()
	if _, err := netns.Home(); err != nil { // is kept for good, as is libcontainer's handle on /proc
		t.Fatal(err)
	}
	alive(os.Getpid(), 0)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if runtime.NumGoroutine() <= goroutines && openFiles(t) <= files {
				return
			}
		}
		stacks := make([]byte, 1<<20)
		t.Errorf("%d goroutines before and %d after, %d descriptors before, and after: %q\n%s", goroutines, runtime.NumGoroutine(),
			files, openFileNames(t), stacks[:runtime.Stack(stacks, true)])
	})
}

// namespaceFile keeps a new network namespace and returns a path to it.
func namespaceFile(t *testing.T) string {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns.Path()
}

func confinementMode(t *testing.T, s *Sandbox) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.confineDir(), confine.ConfigName))
	if err != nil {
		return err.Error()
	}
	if slices.Contains(strings.Split(string(data), "\x00"), "landlock") {
		return confine.ModeEnforcing
	}
	return confine.ModePermissive
}

// inProcess is the Starter of a caller that hosts its sandboxes itself.
func inProcess(t *testing.T) Starter {
	return func(r Request, c *config.Config) (Ready, error) {
		s, err := Start(c, r)
		if err != nil {
			return Ready{}, err
		}
		t.Cleanup(s.Stop)
		return s.Ready(), nil
	}
}

func closeContainer(t *testing.T, c *config.Config, root, id string) {
	t.Helper()
	if err := Close(context.Background(), c, root, id); err != nil {
		t.Errorf("close %s: %v", id, err)
	}
}

// spawn is a Starter by a Spawner of its own.
func spawn(r Request, c *config.Config) (Ready, error) {
	s, err := NewSpawner()
	if err != nil {
		return Ready{}, err
	}
	defer s.Close()
	return s.Start(r, c)
}

// executeCommand is the argument, with a number, by which this program executes itself so often, and stays.
const executeCommand = "execute"

// executeAgain does it from a thread that is not the process's first, as Go programs mostly do.
func executeAgain(times string) {
	n, _ := strconv.Atoi(times)
	go func() {
		runtime.LockOSThread()
		if n > 0 {
			_ = unix.Exec("/proc/self/exe", []string{os.Args[0], executeCommand, strconv.Itoa(n - 1)}, os.Environ())
		}
		fmt.Println("done")
	}()
	<-time.After(time.Hour)
}
