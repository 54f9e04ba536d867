// SPDX-License-Identifier: Apache-2.0

// Package machine gives tests of container engines a machine to themselves: PID
// and mount namespaces of its own, with a fake internet for its network. All that
// containers leave can be counted there, and nothing outlives it. It owns no
// engine.
package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what an engine believes it runs on.
type Machine struct {
	init *exec.Cmd      // the first process, which only reaps
	hold io.WriteCloser // the first process ends when this is closed
}

// variable makes the test program a machine's first process.
const variable = "OPENSHELL_E2E_MACHINE"

// Main has to be the first thing that a test program does: in a machine's first
// process it does not return.
func Main() {
	if os.Getenv(variable) != "" {
		os.Exit(run())
	}
}

// Boot starts a machine in a network namespace.
func Boot(network string) (*Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nsenter", "--net="+network, "--", self)
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("boot a machine: %w", err)
	}
	m := &Machine{init: cmd, hold: hold}
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		return nil, errors.Join(fmt.Errorf("boot a machine: %w", err), m.Halt())
	}
	return m, nil
}

// Halt ends every process of the machine.
func (m *Machine) Halt() error {
	m.hold.Close()
	err := m.init.Wait()
	if status := new(exec.ExitError); errors.As(err, &status) {
		return nil
	}
	return err
}

// run is the first process of a machine.
func run() int {
	if err := ownMounts(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	if _, err := os.Stdout.Write([]byte{'.'}); err != nil {
		return 1
	}
	os.Stdout.Close()
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for range children {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return 0
}

// ownMounts gives a machine a /proc that shows only its own processes, and
// directories that nobody else uses.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, target string }{{"proc", "/proc"}, {"tmpfs", "/run"}, {"tmpfs", "/var/lib"}} {
		if err := unix.Mount(m.kind, m.target, m.kind, unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// Command is a program on the machine.
func (m *Machine) Command(argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--pid", "--net", "--"}
	return exec.Command("nsenter", append(enter, argv...)...)
}

// Path is where a file of the machine can be read from outside.
func (m *Machine) Path(elem ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/%d/root", m.init.Process.Pid)}, elem...)...)
}

// Child returns the process, as this test sees it, that a command on the machine
// has become: nsenter waits for it.
func Child(cmd *exec.Cmd) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 1 {
		return 0, fmt.Errorf("%d processes below nsenter", len(fields))
	}
	return strconv.Atoi(fields[0])
}
