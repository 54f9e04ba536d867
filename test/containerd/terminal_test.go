// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/console"
	"golang.org/x/sys/unix"
)

// terminal is the other side of a command's controlling terminal.
type terminal struct {
	console.Console
	mu  sync.Mutex
	got strings.Builder
}

// openTerminal starts a command on a new terminal.
func openTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, path, err := console.NewPty()
	must(t, err)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	// So that a new size is signalled to it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p := &terminal{Console: master}
	must(t, cmd.Start())
	t.Cleanup(func() {
		interrupt(cmd)
		master.Close()
	})
	go io.Copy(p, master)
	return p
}

// Write keeps what the command wrote.
func (p *terminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.Write(b)
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.String()
}

func (p *terminal) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	must(t, p.Resize(console.WinSize{Height: rows, Width: columns}))
}

func (p *terminal) write(t *testing.T, line string) {
	t.Helper()
	_, err := io.WriteString(p.Console, line)
	must(t, err)
}

// expect types a line until an answer comes: what was typed before there was a
// shell is lost, and a new size takes its time.
func (p *terminal) expect(t *testing.T, what, line, answer string) {
	t.Helper()
	eventually(t, what+": "+answer+" after "+line, func() bool {
		p.write(t, line+"\n")
		unix.Nanosleep(&unix.Timespec{Nsec: 2e8}, nil)
		return strings.Contains(p.text(), answer)
	})
}
