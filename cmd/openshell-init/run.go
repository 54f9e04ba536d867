// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/confine/launch"
)

// The exit codes that shells and container engines use for a command that cannot
// be executed, and for one that is not found.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// errNotFound marks the errors of a program that is not found.
var errNotFound = errors.New("not found")

// self is this program, wherever it is mounted.
const self = "/proc/self/exe"

// run executes the program that args name, confined. It returns on failure, and
// where it stays.
func run(args []string) (status int, err error) {
	if len(args) > 3 && args[0] == launch.AttendFlag && args[2] == "--" {
		return attend(args[1], args[3:])
	}
	stay := len(args) > 0 && args[0] == "--stay"
	if stay {
		args = args[1:]
	}
	dir, argv, err := parseArgs(args)
	if err != nil {
		return 0, err
	}
	// Before the restrictions, which may hide directories of PATH, so that the
	// workload's own program is found where runc would have found it.
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return 0, lookupError(argv[0], err)
	}
	programs := []string{program}
	if stay {
		programs = append(programs, self)
	}
	if err := launch.Apply(dir, programs...); err != nil {
		return 0, err
	}
	if stay {
		// The confinement is one thread's: executed anew, it is all threads'.
		argv = append([]string{"openshell-init", launch.AttendFlag, program, "--"}, argv...)
		program = self
	}
	err = unix.Exec(program, argv, os.Environ())
	return 0, lookupError(program, err)
}

// parseArgs splits the command line at "--". What follows is the workload's, and
// is handed on byte for byte.
func parseArgs(args []string) (dir string, argv []string, err error) {
	dir = launch.Dir
	if len(args) >= 2 && args[0] == "--dir" {
		dir, args = args[1], args[2:]
	}
	if len(args) < 2 || args[0] != "--" {
		return "", nil, errors.New("usage: openshell-init [--stay] [--dir DIR] -- PROGRAM [ARGUMENT...]")
	}
	return dir, args[1:], nil
}

// lookupError gives the reason without os/exec's own prefix.
func lookupError(program string, err error) error {
	if wrapped := (*exec.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("execute %q: %w: %w", program, errNotFound, err)
	}
	return fmt.Errorf("execute %q: %w", program, err)
}

func exitCode(err error) int {
	if errors.Is(err, errNotFound) {
		return exitNotFound
	}
	return exitNotExecutable
}
