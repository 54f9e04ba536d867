package containerd_test

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

// A machine is what a containerd believes it runs on: PID and mount namespaces of
// its own, with a fake internet for its network. All that its containers leave
// can be counted there, and nothing outlives it.
type machine struct {
	init *exec.Cmd      // the first process, which only reaps
	hold io.WriteCloser // the first process ends when this is closed
}

// The test program is a machine's first process where this is set.
const machineVariable = "OPENSHELL_E2E_MACHINE"

// boot starts a machine in a network namespace.
func boot(network string) (*machine, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("nsenter", "--net="+network, "--", self)
	cmd.Env = append(os.Environ(), machineVariable+"=1")
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
	m := &machine{init: cmd, hold: hold}
	if n, err := ready.Read(make([]byte, 1)); n != 1 {
		return nil, errors.Join(fmt.Errorf("boot a machine: %w", err), m.halt())
	}
	return m, nil
}

// halt ends every process of the machine.
func (m *machine) halt() error {
	m.hold.Close()
	err := m.init.Wait()
	if status := new(exec.ExitError); errors.As(err, &status) {
		return nil
	}
	return err
}

// runMachine is the first process of a machine.
func runMachine() int {
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

// command is a program on the machine.
func (m *machine) command(argv ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--pid", "--net", "--"}
	return exec.Command("nsenter", append(enter, argv...)...)
}

// path is where a file of the machine can be read from outside.
func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{fmt.Sprintf("/proc/%d/root", m.init.Process.Pid)}, elem...)...)
}

// child returns the process, as this test sees it, that a command on the machine
// has become: nsenter waits for it.
func child(cmd *exec.Cmd) (int, error) {
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
