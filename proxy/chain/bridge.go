// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"

	"openshell.ai/openshell/internal/crash"
)

// bridge gives a tunnel within TLS the form of those without: everything above relays TCP connections, and asks the
// kernel about them.
func bridge(life context.Context, tunnel *tls.Conn) (*net.TCPConn, error) {
	near, far, err := pair()
	if err != nil {
		return nil, err
	}
	go func() {
		defer tunnel.NetConn().Close()
		defer far.Close()
		defer context.AfterFunc(life, func() {
			tunnel.NetConn().Close()
			reset(far)
		})()
		var wg sync.WaitGroup
		copying := func(to, from halfCloser) {
			failed := true
			crash.Contain("a tunnel through the site's proxy", func() {
				if _, err := io.Copy(to, from); err == nil {
					failed = to.CloseWrite() != nil
				}
			})
			if failed {
				tunnel.NetConn().Close()
				reset(far)
			}
		}
		wg.Go(func() { copying(far, tunnel) })
		copying(tunnel, far)
		wg.Wait()
	}()
	return near, nil
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// acceptWait is more than what has been connected takes.
const acceptWait = 5 * time.Second

// pair makes a TCP connection of this process to itself.
func pair() (near, far *net.TCPConn, err error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if near, err = net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr)); err != nil {
		return nil, nil, err
	}
	_ = l.SetDeadline(time.Now().Add(acceptWait))
	for {
		if far, err = l.AcceptTCP(); err != nil {
			near.Close()
			return nil, nil, err
		}
		if far.RemoteAddr().String() == near.LocalAddr().String() {
			return near, far, nil
		}
		far.Close() // somebody else of this host was quicker
	}
}
