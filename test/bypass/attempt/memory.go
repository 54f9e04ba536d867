// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	commands["victim"] = victim
	commands["sibling"] = sibling
	commands["memory"] = memory
}

// secret is at the same address in every process of this program.
var secret = [9]byte([]byte("untouched"))

const touched = "TAMPERED!"

// victim prints what its memory has become when its input ends.
func victim([]string) error {
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	fmt.Println("memory is", string(secret[:]))
	return nil
}

// sibling has one child, a victim, attacked by another: METHOD.
func sibling(args []string) error {
	v := exec.Command("/proc/self/exe", "victim")
	v.Stderr = os.Stderr
	in, err := v.StdinPipe()
	if err != nil {
		return err
	}
	out, err := v.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.Start(); err != nil {
		return err
	}
	ready := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, ready); err != nil {
		return err
	}
	a := exec.Command("/proc/self/exe", "memory", args[0], strconv.Itoa(v.Process.Pid))
	a.Stdout, a.Stderr = os.Stdout, os.Stderr
	failed := a.Run()
	in.Close()
	_, err = io.Copy(os.Stdout, out)
	return errors.Join(failed, err, v.Wait())
}

// memory reads or writes another process's secret: METHOD PID.
func memory(args []string) error {
	pid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	address := uintptr(unsafe.Pointer(&secret))
	buffer := make([]byte, len(secret))
	copy(buffer, touched)
	local := []unix.Iovec{{Base: &buffer[0], Len: uint64(len(buffer))}}
	remote := []unix.RemoteIovec{{Base: address, Len: len(buffer)}}
	mem := fmt.Sprintf("/proc/%d/mem", pid)
	switch args[0] {
	case "write":
		f, err := os.OpenFile(mem, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(buffer, int64(address))
		return err
	case "process_vm_writev":
		_, err = unix.ProcessVMWritev(pid, local, remote, 0)
		return err
	case "ptrace":
		runtime.LockOSThread()
		if err := unix.PtraceAttach(pid); err != nil {
			return err
		}
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
			return err
		}
		if _, err := unix.PtracePokeData(pid, address, buffer); err != nil {
			return err
		}
		return unix.PtraceDetach(pid)
	case "read":
		f, err := os.Open(mem)
		if err != nil {
			return err
		}
		if _, err := f.ReadAt(buffer, int64(address)); err != nil {
			return err
		}
	case "process_vm_readv":
		if _, err := unix.ProcessVMReadv(pid, local, remote, 0); err != nil {
			return err
		}
	default:
		return fmt.Errorf("no method %q", args[0])
	}
	fmt.Println("read", string(buffer))
	return nil
}
