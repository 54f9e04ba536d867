// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

func init() {
	commands["receive-socket"] = receiveSocket
	commands["send-socket"] = sendSocket
}

// receiveSocket has another program send a TCP socket over a unix socket
// (SCM_RIGHTS, unix(7)), and writes to it.
//
//	receive-socket PROGRAM ADDR:PORT connected|unconnected
//
// A connected one has been used by its sender, which has ended. One that is not
// connected is connected here, while the sender has it too.
func receiveSocket(args []string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	sender := exec.Command(args[0], append([]string{"send-socket"}, args[1:]...)...)
	sender.ExtraFiles, sender.Stderr = []*os.File{theirs}, os.Stderr
	if err := sender.Start(); err != nil {
		return err
	}
	theirs.Close()
	fd, err := receive(pair[0])
	if err != nil {
		return fmt.Errorf("%w (the sender: %v)", err, sender.Wait())
	}
	if args[2] == "connected" {
		err = sender.Wait()
	} else {
		err = connect(fd, args[1])
	}
	err = errors.Join(err, echo(os.NewFile(uintptr(fd), "passed"), "passed"))
	unix.Close(pair[0]) // lets the sender end
	// A connection of its own.
	own, dialed := net.Dial("tcp", args[1])
	if dialed != nil {
		return errors.Join(err, dialed)
	}
	return errors.Join(err, echo(own, "own"))
}

// sendSocket is the other side; the unix socket is descriptor 3.
func sendSocket(args []string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	connected := args[1] == "connected"
	if connected {
		if err := connect(fd, args[0]); err != nil {
			return err
		}
		copied, err := unix.Dup(fd)
		if err != nil {
			return err
		}
		if err := echo(os.NewFile(uintptr(copied), "mine"), "mine"); err != nil {
			return err
		}
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(fd), nil, 0); err != nil {
		return err
	}
	if !connected {
		_, _ = unix.Read(3, make([]byte, 1)) // until the receiver has done
	}
	return nil
}

func receive(from int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(from, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return 0, fmt.Errorf("no socket was sent: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

func connect(fd int, addr string) error {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())})
}

// echo writes a text and waits for it to come back.
func echo(conn io.ReadWriteCloser, text string) error {
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(conn, back); err != nil {
		return fmt.Errorf("%s: no echo: %w", text, err)
	}
	fmt.Println("echoed:", string(back))
	return nil
}
