// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/test/fakenet"
)

const echoUDP = fakenet.EchoHost + ":7"

// datagrams opens a socket of the workload to a destination.
func (r *room) datagrams(host string, port uint16) net.Conn {
	r.t.Helper()
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if addr, err = r.lookup(context.Background(), host); err != nil {
			r.t.Fatal(err)
		}
	}
	conn, err := r.inner.Dial(context.Background(), "udp", netip.AddrPortFrom(addr, port))
	if err != nil {
		r.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// exchangeDatagram sends a datagram and returns the answer.
func exchangeDatagram(conn net.Conn, payload string) (string, error) {
	if _, err := conn.Write([]byte(payload)); err != nil {
		return "", err
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	return string(b[:n]), err
}

func TestUDP(t *testing.T) {
	const rule = "{host: echo.example, port: 7, protocol: udp}"
	for _, tt := range []struct {
		name     string
		view     decision.Snapshot
		v6, pass bool
		want     []string
	}{
		{"allowed", enforcing(rule), false, true, []string{"connect allowed l4 " + echoUDP + " policy=p udp"}},
		{"allowed over IPv6", enforcing(rule), true, true, []string{"connect allowed l4 " + echoUDP + " policy=p udp"}},
		{"permissive", permissive(""), false, true, []string{
			"connect logged l4 " + echoUDP + " udp (network connections not allowed by policy)",
			"connect logged l4 " + echoUDP + " udp EVIDENCE (network connections not allowed by policy)"}},
		{"denied", enforcing(""), false, false, []string{
			"connect denied l4 " + echoUDP + " udp EVIDENCE (network connections not allowed by policy)"}},
		{"a rule for TCP", enforcing("{host: echo.example, port: 7}"), true, false, []string{
			"connect denied l4 " + echoUDP + " udp EVIDENCE (endpoint echo.example:7 is not allowed by any policy)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRoom(t, tt.view)
			r.v6 = tt.v6
			conn := r.datagrams(fakenet.EchoHost, 7)
			for _, payload := range []string{"one", "two", "three"} {
				answer, err := exchangeDatagram(conn, payload)
				switch {
				case tt.pass && (err != nil || answer != payload):
					t.Fatalf("%q, %v", answer, err)
				case !tt.pass && !errors.Is(err, syscall.ECONNREFUSED):
					t.Fatalf("%q, %v, want connection refused", answer, err)
				}
			}
			r.want(tt.want...)
		})
	}
}

func TestUDPHoldsToTheGuardAndIdentity(t *testing.T) {
	t.Run("address", func(t *testing.T) {
		r := newRoom(t, permissive(""))
		for _, host := range []string{"169.254.169.254", "10.1.2.3", fakenet.PrivateHost} {
			if answer, err := exchangeDatagram(r.datagrams(host, 7), "x"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %q, %v", host, answer, err)
			}
		}
		for _, rec := range r.records() {
			if rec.Outcome != decision.Denied || rec.Layer != LayerSSRF || rec.Evidence {
				t.Errorf("record %s", line(rec))
			}
		}
	})
	t.Run("identity", func(t *testing.T) {
		r := newRoom(t, permissive(""), func(_ *room, c *Config) {
			c.IdentifyDatagram = func(netip.AddrPort, netip.AddrPort) (identity.Process, error) {
				return identity.Process{}, errors.New("nobody knows")
			}
		})
		if answer, err := exchangeDatagram(r.datagrams(fakenet.EchoHost, 7), "x"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%q, %v", answer, err)
		}
		r.want("connect denied identity *")
	})
}

func TestQUICFallsBackInPermissiveMode(t *testing.T) {
	initial := string(append([]byte{0xc3, 0, 0, 0, 1, 8}, bytes.Repeat([]byte{7}, minInitial)...))
	r := newRoom(t, permissive(""))
	if answer, err := exchangeDatagram(r.datagrams(fakenet.EchoHost, 443), initial); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
	r.want("connect denied l4 echo.example:443 udp (QUIC *")

	r = newRoom(t, enforcing("{host: echo.example, port: 443, protocol: udp}"))
	if answer, err := exchangeDatagram(r.datagrams(fakenet.EchoHost, 443), initial); err != nil || answer != initial {
		t.Errorf("with a rule: %d bytes, %v", len(answer), err)
	}
}

// QUIC may begin with any datagram of an association, not only the first.
func TestQUICBehindAnotherDatagram(t *testing.T) {
	initial := append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, minInitial)...)
	for name, tt := range map[string]struct {
		quic []byte
		wait bool // for the answer to the one before
	}{
		"later":       {initial, true},
		"at once":     {initial, false},
		"small":       {initial[:30], true},
		"version 2":   {append([]byte{0x93, 0x6b, 0x33, 0x43, 0xcf, 8}, make([]byte, 60)...), true},
		"of a draft":  {append([]byte{0xc3, 0xff, 0, 0, 29, 8}, make([]byte, minInitial)...), true},
		"of no fame":  {append([]byte{0xc3, 0x5a, 0x6a, 7, 7, 8}, make([]byte, minInitial)...), true},
		"fixed bit 0": {append([]byte{0x83, 0, 0, 0, 1, 8}, make([]byte, minInitial)...), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, permissive(""))
			conn := r.datagrams(fakenet.EchoHost, 443)
			if !tt.wait {
				if _, err := conn.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			} else if answer, err := exchangeDatagram(conn, "x"); err != nil || answer != "x" {
				t.Fatalf("%q, %v", answer, err)
			}
			for seen := ""; ; {
				answer, err := exchangeDatagram(conn, string(tt.quic))
				if errors.Is(err, syscall.ECONNREFUSED) {
					break
				}
				if seen += answer; err != nil || seen != "x" { // the one before
					t.Fatalf("%d bytes, %v", len(answer), err)
				}
			}
			r.want("connect logged l4 echo.example:443 udp (network connections not allowed by policy)",
				"connect logged l4 echo.example:443 udp EVIDENCE (network connections not allowed by policy)",
				"connect denied l4 echo.example:443 udp (QUIC *")
		})
	}
}

// An association that a rule allowed, and that only permissive mode does now, begins
// no QUIC.
func TestQUICAfterItsRule(t *testing.T) {
	initial := string(append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, minInitial)...))
	r := newRoom(t, enforcing("{host: echo.example, port: 443, protocol: udp}"))
	conn := r.datagrams(fakenet.EchoHost, 443)
	for _, payload := range []string{"x", initial} {
		if answer, err := exchangeDatagram(conn, payload); err != nil || answer != payload {
			t.Fatalf("%d bytes, %v", len(answer), err)
		}
	}
	r.change(permissive(""))
	if answer, err := exchangeDatagram(conn, "x"); err != nil || answer != "x" {
		t.Fatalf("%q, %v", answer, err)
	}
	if answer, err := exchangeDatagram(conn, initial); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
}

func TestReconsiderEndsUDP(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(""), enforcing("{host: echo.example, port: 7, protocol: udp, allowed_ips: [10.0.0.0/8]}")} {
		r := newRoom(t, enforcing("{host: echo.example, port: 7, protocol: udp}"))
		conn := r.datagrams(fakenet.EchoHost, 7)
		if _, err := exchangeDatagram(conn, "one"); err != nil {
			t.Fatal(err)
		}
		r.change(v)
		awaitRefusal(t, conn)
	}
}

// awaitRefusal sends datagrams until the workload is told that nobody is there.
func awaitRefusal(t *testing.T, conn net.Conn) {
	t.Helper()
	eventually(t, "a refusal", func() bool {
		_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := exchangeDatagram(conn, "two")
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestUDPPortOfAnotherProgram has a program take over the port of one that may
// speak to a destination, which the kernel lets it as soon as that is free.
func TestUDPPortOfAnotherProgram(t *testing.T) {
	var taken, forked atomic.Bool
	r := newRoom(t, enforcing("{host: echo.example, port: 7, protocol: udp}"), func(_ *room, c *Config) {
		c.IdentifyDatagram = func(netip.AddrPort, netip.AddrPort) (identity.Process, error) {
			p := tool
			if forked.Load() {
				p.PID++
			}
			if taken.Load() {
				p.Path = "/usr/bin/other"
			}
			return p, nil
		}
	})
	conn := r.datagrams(fakenet.EchoHost, 7)
	for _, fork := range []bool{false, true} {
		forked.Store(fork)
		if answer, err := exchangeDatagram(conn, "one"); err != nil || answer != "one" {
			t.Fatalf("%q, %v", answer, err)
		}
		time.Sleep(identityHolds)
	}
	if n := len(r.records()); n != 1 {
		t.Errorf("%d records of one association", n)
	}
	taken.Store(true)
	awaitRefusal(t, conn)
	records := r.await(2)
	if last := records[len(records)-1]; last.Outcome != decision.Denied || last.Process.Path != "/usr/bin/other" || len(records) != 2 {
		t.Errorf("records %v", records)
	}
}

// Nobody is at the destination: the workload is told so, as without a sandbox.
func TestUnreachableUpstreamIsPassedOn(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := r.datagrams(fakenet.EchoHost, 9999)
	if answer, err := exchangeDatagram(conn, "x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%q, %v", answer, err)
	}
}
