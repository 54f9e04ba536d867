// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"openshell.ai/openshell/proxy/identity"
)

// A panic about one connection, one request or one datagram ends that, and
// nothing else.
func TestPanicEndsOneConnection(t *testing.T) {
	const bad = 81
	for name, change := range map[string]func(*room, *Config){
		"identity": func(r *room, c *Config) {
			identify := c.Identify
			c.Identify = func(local, remote netip.AddrPort) (identity.Process, error) {
				if remote.Port() == bad {
					panic("a bug")
				}
				return identify(local, remote)
			}
		},
		"record": func(r *room, c *Config) {
			record := c.Record
			c.Record = func(rec Record) {
				if rec.Port == bad {
					panic("a bug")
				}
				record(rec)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, permissive(""), change)
			conn, err := r.dial(context.Background(), "tcp", "45.64.45.12:81")
			if err == nil {
				_ = conn.SetReadDeadline(time.Now().Add(patience))
				if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: 45.64.45.12:81\r\n\r\n")); err != nil {
					t.Log(err)
				}
				var timeout net.Error
				if _, err := conn.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
					t.Errorf("the connection goes on: %v", err)
				}
				conn.Close()
			}
			if a := r.get(r.client(false), "http://45.64.45.12/next"); a.StatusCode != 200 {
				t.Errorf("the next connection: %+v", a)
			}
		})
	}
}
