// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watcher tells of changes to a namespace's devices, addresses and routes
// (rtnetlink(7)).
type Watcher struct{ conn *netlink.Conn }

// Watch begins to watch a namespace.
func Watch(n *Namespace) (*Watcher, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: n.Fd()})
	if err != nil {
		return nil, fmt.Errorf("watch network namespace: %w", err)
	}
	for _, group := range []uint32{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE} {
		if err := conn.JoinGroup(group); err != nil {
			conn.Close()
			return nil, fmt.Errorf("watch network namespace: %w", err)
		}
	}
	return &Watcher{conn}, nil
}

// Changed waits until something has changed and nothing more has for a while,
// so that whoever sets up a device can finish. It fails once the watcher is
// closed.
func (w *Watcher) Changed(quiet time.Duration) error {
	if err := w.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	for {
		_, err := w.conn.Receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, unix.ENOBUFS): // so much has changed that not all could be told
		case err != nil:
			return fmt.Errorf("watch network namespace: %w", err)
		}
		if err := w.conn.SetReadDeadline(time.Now().Add(quiet)); err != nil {
			return err
		}
	}
}

// Close ends the watch.
func (w *Watcher) Close() error {
	if err := w.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
