// SPDX-License-Identifier: Apache-2.0

// Package chain reaches origins through the site's own HTTP proxy: which of them
// go there, and the tunnel (CONNECT, RFC 9110 section 9.3.6). It decides nothing
// about what a workload may reach.
package chain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"openshell.ai/openshell/internal/printable"
)

// Config is what a Proxy works with. URL, Dial and Resolve are required.
type Config struct {
	URL     string   // http://host:port or https://host:port
	NoProxy []string // as the configuration has them, see package httpproxy
	// Authorization is asked for each tunnel: the value of Proxy-Authorization, or "".
	Authorization func() (string, error)
	Roots         *x509.CertPool // of an https proxy's certificate; nil: the host's
	Dial          func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	Resolve       func(ctx context.Context, host string) ([]netip.Addr, error)
}

// Proxy is the site's proxy. The nil one carries nothing.
type Proxy struct {
	Config
	url   *url.URL
	route func(*url.URL) (*url.URL, error)
}

// New returns the proxy of a configuration.
func New(c Config) (*Proxy, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("upstream_proxy.url: want http://host:port or https://host:port")
	}
	routes := httpproxy.Config{HTTPSProxy: c.URL, NoProxy: strings.Join(c.NoProxy, ",")}
	return &Proxy{Config: c, url: u, route: routes.ProxyFunc()}, nil
}

// Carries reports whether a connection goes through the proxy: not where the host or all that it resolved to
// is in NoProxy. Without addresses the proxy has to resolve the name.
func (p *Proxy) Carries(host string, port uint16, addrs []netip.Addr) bool {
	if p == nil || !p.proxied(host, port) {
		return false
	}
	for _, a := range addrs {
		if p.proxied(a.String(), port) {
			return true
		}
	}
	return len(addrs) == 0
}

// TakesName reports whether connections to a name go through the proxy, on some port.
func (p *Proxy) TakesName(name string) bool { return p.proxied(name, anyPort) }

// anyPort is one that no entry of NoProxy is likely to have.
const anyPort = 65535

func (p *Proxy) proxied(host string, port uint16) bool {
	via, err := p.route(&url.URL{Scheme: "https", Host: join(host, port)})
	return err != nil || via != nil
}

func join(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

// Connect opens a tunnel, which ends with life at the latest. The name is told, not its addresses: the proxy may
// decide by it, and may be the only one that can resolve it.
func (p *Proxy) Connect(ctx, life context.Context, host string, port uint16) (*net.TCPConn, error) {
	conn, err := p.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("upstream_proxy %s: %w", p.url.Host, err)
	}
	tunnel, err := p.open(ctx, life, conn, join(host, port))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("upstream_proxy %s: %w", p.url.Host, err)
	}
	return tunnel, nil
}

// Check connects to the proxy, and asks nothing of it.
func (p *Proxy) Check(ctx context.Context) error {
	if p.Authorization != nil {
		if _, err := p.Authorization(); err != nil {
			return err
		}
	}
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = p.secure(ctx, conn)
	return err
}

// dial connects to the proxy at the first of its addresses that answers.
func (p *Proxy) dial(ctx context.Context) (*net.TCPConn, error) {
	addrs, err := p.Resolve(ctx, p.url.Hostname())
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(p.url.Port(), 10, 16)
	if err != nil {
		return nil, err
	}
	err = errors.New("no address")
	deadline, bounded := ctx.Deadline()
	for i, a := range addrs {
		// A dead address must leave time for those behind it.
		attempt, done := context.WithCancel(ctx)
		if bounded {
			attempt, done = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		var conn net.Conn
		conn, err = p.Dial(attempt, "tcp", netip.AddrPortFrom(a, uint16(port)))
		done()
		if err == nil {
			return conn.(*net.TCPConn), nil // as the network says
		}
	}
	return nil, err
}

// secure returns the connection as HTTP is spoken on it.
func (p *Proxy) secure(ctx context.Context, conn *net.TCPConn) (net.Conn, error) {
	if p.url.Scheme != "https" {
		return conn, nil
	}
	secured := tls.Client(conn, &tls.Config{ServerName: p.url.Hostname(), RootCAs: p.Roots,
		NextProtos: []string{"http/1.1"}})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS to the proxy itself (upstream_proxy.ca has its CA): %w", err)
	}
	return secured, nil
}

func (p *Proxy) open(ctx, life context.Context, conn *net.TCPConn, authority string) (*net.TCPConn, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	secured, err := p.secure(ctx, conn)
	if err == nil {
		err = p.ask(secured, authority)
	}
	if !stop() {
		<-interrupted
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if secured == net.Conn(conn) {
		return conn, nil
	}
	return bridge(life, secured.(*tls.Conn))
}

// ask sends CONNECT and reads the answer, and nothing behind it.
func (p *Proxy) ask(conn net.Conn, authority string) error {
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: authority}, Host: authority,
		Header: http.Header{"User-Agent": {"openshell"}}}
	if p.Authorization != nil {
		value, err := p.Authorization()
		if err != nil {
			return err
		}
		if value != "" {
			r.Header.Set("Proxy-Authorization", value)
		}
	}
	if err := r.Write(conn); err != nil {
		return err
	}
	for {
		head, err := readHead(conn)
		if err != nil {
			return fmt.Errorf("its answer to CONNECT: %w", err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), r)
		if err != nil {
			return fmt.Errorf("its answer to CONNECT: %w", err)
		}
		resp.Body.Close()
		switch {
		case resp.StatusCode < 200: // RFC 9110 section 15.2
			continue
		case resp.StatusCode < 300:
			return nil
		case resp.StatusCode == http.StatusProxyAuthRequired:
			return fmt.Errorf("it answered %s: put its user:password into upstream_proxy.credentials_file (scheme Basic)",
				printable.Text(resp.Status))
		}
		return fmt.Errorf("it answered %s to CONNECT %s", printable.Text(resp.Status), authority)
	}
}

// maxHead bounds the heads of the proxy's answers.
const maxHead = 64 << 10

// readHead reads to the end of an answer's head. It takes byte after byte, because what follows is the tunnel's: a
// server that speaks first may have spoken already.
func readHead(r io.Reader) ([]byte, error) {
	var head []byte
	var one [1]byte
	for len(head) < maxHead {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, err
		}
		head = append(head, one[0])
		if bytes.HasSuffix(head, []byte("\n\r\n")) || bytes.HasSuffix(head, []byte("\n\n")) {
			return head, nil
		}
	}
	return nil, fmt.Errorf("its head is larger than %d bytes", maxHead)
}
