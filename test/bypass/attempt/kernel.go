// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	commands["writable"] = writable
	commands["write-through"] = writeThrough
	commands["mm"] = forgeExecutable
	commands["families"] = families
}

// writable lists the files below directories that could be written, without
// opening them. Processes' own files in proc are left out, and psi's, which are
// the opener's.
func writable(dirs []string) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // it cannot be read
			}
			if d.IsDir() {
				if _, err := strconv.Atoi(d.Name()); err == nil && filepath.Dir(path) == dir || d.Name() == "pressure" {
					return fs.SkipDir
				}
				return nil
			}
			info, err := d.Info()
			if err == nil && info.Mode().IsRegular() && info.Mode()&0o222 != 0 && unix.Access(path, unix.W_OK) == nil {
				fmt.Println(path)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// writeThrough writes a value to a file of proc by every way that leads there:
// PROC VALUE FILE, as in "/proc x sys/kernel/core_pattern". Without a value, the
// file is only opened. Ways that worked are printed.
func writeThrough(args []string) error {
	proc, value, file := args[0], args[1], args[2]
	write := func(way string, fd int, err error) {
		if err != nil {
			return
		}
		defer unix.Close(fd)
		if value != "" {
			_, err = unix.Write(fd, []byte(value))
		}
		if err == nil {
			fmt.Println(way)
		}
	}
	for _, prefix := range []string{"", "/proc/self/root", "/proc/1/root", "/proc/thread-self/root", "/proc/self/cwd/.."} {
		path := prefix + proc + "/" + file
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		write(path, fd, err)
	}
	// A descriptor that was opened for nothing, opened again.
	held, err := unix.Open(proc+"/"+file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	again := fmt.Sprintf("/proc/self/fd/%d", held)
	fd, err := unix.Open(again, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	write(again, fd, err)
	// From a directory, without a path from the root.
	dir, err := unix.Open(filepath.Dir(proc+"/"+file), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err = unix.Openat(dir, filepath.Base(file), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	write("openat", fd, err)
	// And from another root.
	if err := unix.Chroot(proc); err == nil {
		fd, err = unix.Open("/"+file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		write("chroot", fd, err)
	}
	return nil
}

// forgeExecutable gives this process the name of another program, and prints what
// it is called then.
func forgeExecutable(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	// EBUSY would say that the call is open: the old program is still mapped here.
	fmt.Println(errorName(unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_EXE_FILE, f.Fd(), 0, 0)))
	return nil
}

func errorName(err error) string {
	if errno, ok := err.(unix.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return "ok"
}

// families prints the errors of a socket of each address family, and of each
// protocol of netlink.
func families([]string) error {
	var list []string
	for family := range 64 {
		best := ""
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET, unix.SOCK_RAW} {
			fd, err := unix.Socket(family, kind, 0)
			if err == nil {
				unix.Close(fd)
			}
			if best != "ok" {
				best = errorName(err)
			}
		}
		list = append(list, fmt.Sprintf("family-%d=%s", family, best))
	}
	for protocol := range 32 {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, protocol)
		if err == nil {
			unix.Close(fd)
		}
		list = append(list, fmt.Sprintf("netlink-%d=%s", protocol, errorName(err)))
	}
	fmt.Println(strings.Join(list, "\n"))
	return nil
}
