// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	commands["anonymous"] = anonymous
	commands["removed"] = removed
	commands["covered"] = covered
	commands["cover"] = cover
}

// anonymous becomes a program whose file is in memory only: NAME PROGRAM [ARGUMENT…].
func anonymous(args []string) error {
	fd, err := unix.MemfdCreate(args[0], unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), args[0])
	program, err := os.Open(args[1])
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, program); err != nil {
		return err
	}
	// No file may be executed that somebody can write.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return err
	}
	file.Close()
	return executeFile(again, args[1:])
}

// removed becomes a program whose file has gone, and with another name for the file where one is given:
// FILE OTHER|- PROGRAM [ARGUMENT…].
func removed(args []string) error {
	name, other, argv := args[0], args[1], args[2:]
	data, err := os.ReadFile(argv[0])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(name, data, 0o755); err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	if other != "-" {
		if err := os.Link(name, other); err != nil {
			return err
		}
	}
	if err := os.Remove(name); err != nil {
		return err
	}
	return executeFile(file, argv)
}

// executeFile executes an open file (execveat(2)).
func executeFile(file *os.File, argv []string) error {
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings(os.Environ())
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, file.Fd(), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&args[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// covered executes a program in user and mount namespaces of its own, with FILE mounted over TARGET:
// FILE TARGET PROGRAM [ARGUMENT…].
func covered(args []string) error {
	cmd := exec.Command("/proc/self/exe", append([]string{"cover"}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	return cmd.Run()
}

// cover is covered, inside.
func cover(args []string) error {
	if err := unix.Mount(args[0], args[1], "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over %s: %w", args[0], args[1], err)
	}
	return unix.Exec(args[2], args[2:], os.Environ())
}
