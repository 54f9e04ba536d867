// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// unforwarded are the signals that are about this process: of its children, its
// runtime, its pipes and its terminal.
var unforwarded = []os.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU}

// forGroup are the signals that a terminal sends to every process of a command.
var forGroup = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT}

// attend runs a program as a container's first process: it waits for whatever is
// left to it, and passes signals on. The kernel does not let a signal end a first
// process that does not ask for it; the program is not the first one, and so does
// what it does anywhere. It returns the program's status, as shells do; all other
// processes of the container end with this one.
func attend(program string, argv []string) (status int, err error) {
	// All signals: what was ignored here would be ignored by the program.
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	tty := terminal()
	// A group of its own: what the terminal sends is sent once.
	child, err := syscall.ForkExec(program, argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 0, lookupError(program, err)
	}
	if tty >= 0 {
		// It may have been stopped meanwhile, because it was not yet in the
		// foreground.
		_ = unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, child)
		_ = unix.Kill(-child, unix.SIGCONT)
	}
	for s := range signals {
		switch {
		case s == unix.SIGCHLD:
			if status, ended := reap(child); ended {
				return status, nil
			}
		case slices.Contains(forGroup, s):
			_ = unix.Kill(-child, s.(unix.Signal))
		case !slices.Contains(unforwarded, s):
			_ = unix.Kill(child, s.(unix.Signal))
		}
	}
	return 0, errors.New("there are no more signals") // they are for ever
}

// terminal returns the standard stream that is this process's terminal, with this
// process in its foreground, or -1.
func terminal() int {
	for fd := range 3 {
		if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && group == unix.Getpgrp() {
			return fd
		}
	}
	return -1
}

// reap takes note of the children that have ended, and reports whether the program
// is one of them.
func reap(child int) (status int, ended bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG|unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || pid == 0:
			return 0, false
		case pid != child:
		case ws.Exited():
			return ws.ExitStatus(), true
		case ws.Signaled():
			return 128 + int(ws.Signal()), true
		case ws.Stopped() && ws.StopSignal() != unix.SIGSTOP:
			// There is no shell here that could continue it.
			_ = unix.Kill(-child, unix.SIGCONT)
		}
	}
}
