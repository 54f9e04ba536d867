// SPDX-License-Identifier: Apache-2.0

package chain

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCarries(t *testing.T) {
	p, err := New(Config{URL: "http://proxy.example:3128", NoProxy: []string{"10.0.0.0/8", "fd00::/8", "corp.example", ".sub.example", "port.example:8443", "45.64.45.1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host  string
		port  uint16
		addrs string // separated by spaces
		want  bool
	}{
		{"web.example", 80, "45.64.45.10", true},
		{"web.example", 25, "", true},
		{"45.64.45.10", 443, "45.64.45.10", true},
		{"2a0e::1", 443, "2a0e::1", true},
		{"corp.example", 443, "45.64.45.10", false},
		{"www.corp.example", 443, "", false},
		{"WWW.Corp.Example", 443, "", false},
		{"notcorp.example", 443, "", true},
		{"sub.example", 443, "", true},
		{"a.sub.example", 443, "", false},
		{"port.example", 443, "", true},
		{"port.example", 8443, "", false},
		{"10.1.2.3", 443, "10.1.2.3", false},
		{"fd00::1", 443, "fd00::1", false},
		{"45.64.45.1", 443, "45.64.45.1", false},
		{"inside.example", 443, "10.1.2.3", false},
		{"inside.example", 443, "10.1.2.3 fd00::1", false},
		{"both.example", 443, "10.1.2.3 45.64.45.10", true}, // the first might not be tried
		{"localhost", 443, "", false},
	} {
		var addrs []netip.Addr
		for _, a := range strings.Fields(tt.addrs) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if got := p.Carries(tt.host, tt.port, addrs); got != tt.want {
			t.Errorf("%s:%d at %q: %v", tt.host, tt.port, tt.addrs, got)
		}
	}
	if none := (*Proxy)(nil); none.Carries("web.example", 80, nil) {
		t.Error("no proxy carries something")
	}
}

// site is a site's proxy that answers CONNECT as answer does.
type site struct {
	asked chan *http.Request
}

// start returns a Proxy that leads to it, with and without TLS.
func (s *site) start(t *testing.T, secured bool, answer func(net.Conn)) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	at := netip.MustParseAddrPort(l.Addr().String())
	c := Config{
		URL:           "http://proxy.example:3128",
		Authorization: func() (string, error) { return "Basic dTpw", nil },
		Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			if to.Addr() != at.Addr() {
				return nil, errors.New("no route")
			}
			return new(net.Dialer).DialContext(ctx, network, at.String())
		},
		// The first is dead.
		Resolve: func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1"), at.Addr()}, nil
		},
	}
	if secured {
		origin := httptest.NewUnstartedServer(nil)
		origin.StartTLS() // for its certificate
		origin.Close()
		c.URL, c.Roots = "https://example.com:3128", x509.NewCertPool()
		c.Roots.AddCert(origin.Certificate())
		l = tls.NewListener(l, &tls.Config{Certificates: origin.TLS.Certificates})
	}
	s.asked = make(chan *http.Request, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				s.asked <- r
				answer(conn)
			}()
		}
	}()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const established = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"

func TestConnect(t *testing.T) {
	for _, secured := range []bool{false, true} {
		var s site
		p := s.start(t, secured, func(conn net.Conn) {
			// The server behind it has spoken already, and answers what was said when that has ended.
			_, _ = io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"+established+"220 ready\r\n")
			said, _ := io.ReadAll(conn)
			_, _ = conn.Write(said)
		})
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("TLS %v: check: %v", secured, err)
		}
		conn, err := p.Connect(t.Context(), t.Context(), "mail.example", 25)
		if err != nil {
			t.Fatalf("TLS %v: %v", secured, err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "hello")
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(conn); string(got) != "220 ready\r\nhello" || err != nil {
			t.Errorf("TLS %v: read %q, %v", secured, got, err)
		}
		r := <-s.asked
		if r.Method != "CONNECT" || r.Host != "mail.example:25" || r.RequestURI != "mail.example:25" || r.Header.Get("Proxy-Authorization") != "Basic dTpw" {
			t.Errorf("TLS %v: asked %s %s of %s, %v", secured, r.Method, r.RequestURI, r.Host, r.Header)
		}
	}
}

// The tunnel ends with whom it was opened for, also where nobody closes it.
func TestConnectEndsWithLife(t *testing.T) {
	ended := make(chan error, 1)
	var s site
	p := s.start(t, true, func(conn net.Conn) {
		_, _ = io.WriteString(conn, established)
		_, err := io.ReadAll(conn)
		ended <- err
	})
	life, end := context.WithCancel(t.Context())
	conn, err := p.Connect(t.Context(), life, "web.example", 443)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	end()
	<-ended
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the near end lives on")
	}
}

func TestConnectRefused(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno!!!":                       "upstream_proxy proxy.example:3128: it answered 403 Forbidden to CONNECT web.example:443",
		"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n":                             "upstream_proxy.credentials_file",
		"HTTP/1.1 502 a\x1bb\r\n\r\n":                                                    `502 a\x1bb`,
		"SSH-2.0-x\r\n\r\n":                                                              "answer to CONNECT",
		"HTTP/1.1 200 OK\r\n":                                                            "EOF",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\n\r\n":             "larger than",
		"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\nTransfer-Encoding: nonsense\r\n\r\n": "answer to CONNECT",
	} {
		var s site
		p := s.start(t, false, func(conn net.Conn) { _, _ = io.WriteString(conn, answer) })
		conn, err := p.Connect(t.Context(), t.Context(), "web.example", 443)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%.40q: %v, want %q", answer, err, want)
		}
	}
	// One that says nothing.
	var s site
	p := s.start(t, false, func(conn net.Conn) { _, _ = io.ReadAll(conn) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Connect(ctx, t.Context(), "web.example", 443); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	// One that somebody else pretends to be.
	p = new(site).start(t, true, func(net.Conn) {})
	p.Roots = x509.NewCertPool()
	if _, err := p.Connect(t.Context(), t.Context(), "web.example", 443); err == nil || !strings.Contains(err.Error(), "upstream_proxy.ca") {
		t.Errorf("a certificate of nobody: %v", err)
	}
	p.Authorization = func() (string, error) { return "", errors.New("no credentials") }
	if err := p.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no credentials") {
		t.Errorf("credentials: %v", err)
	}
}
