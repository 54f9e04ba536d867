// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Idle returns for how long none of the connections has carried anything, either
// way, as the kernel knows (TCP_INFO, tcp(7)): keep-alives carry nothing, and who
// copies bytes does not have to watch a clock. ok is false where all are closed.
func Idle(conns ...*net.TCPConn) (idle time.Duration, ok bool) {
	for _, c := range conns {
		raw, err := c.SyscallConn()
		if err != nil {
			continue
		}
		var info *unix.TCPInfo
		if raw.Control(func(fd uintptr) {
			info,
				err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		}) != nil || err != nil {
			continue
		}
		since := time.Duration(min(info.Last_data_sent, info.Last_data_recv)) * time.Millisecond
		if !ok || since < idle {
			idle, ok = since, true
		}
	}
	return idle, ok
}
