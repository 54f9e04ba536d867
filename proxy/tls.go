package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// handshakeWait bounds a TLS handshake with the workload, the upstream one
// within it included.
const handshakeWait = 30 * time.Second

// termination is the two handshakes of a connection whose TLS the proxy ends
// on both sides.
type termination struct {
	f        *flow
	upstream net.Conn // nil: the client is only told why it is refused

	origin    *tls.Conn
	originErr error
	wrongName string // the client asked for this server instead
}

// terminate ends TLS at the proxy, so that requests can be seen.
func (f *flow) terminate(up *net.TCPConn, prefix []byte, p plan) {
	f.setTLS(TLSTerminated)
	f.scheme = "https"
	t := &termination{f: f, upstream: up}
	client, err := t.handshake(prefix)
	if err != nil {
		up.Close()
		t.failed(err)
		return
	}
	if t.originErr != nil {
		f.refusal = f.refusedCertificate(t.originErr)
		f.p.toOrigin.give(client)
		return
	}
	f.offer(t.origin)
	switch client.ConnectionState().NegotiatedProtocol {
	case "h2", "http/1.1":
		f.p.toOrigin.give(client)
	case "":
		f.undeclared(client, p)
	default:
		f.opaqueTLS(client, nil, p)
	}
}

// handshake completes TLS with the client, after TLS with the origin, so that
// both speak the protocol that the origin chose.
func (t *termination) handshake(prefix []byte) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(t.f.ctx, handshakeWait)
	defer cancel()
	client := tls.Server(newFlowConn(t.f, t.f.client, prefix), &tls.Config{GetConfigForClient: t.config})
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return client, nil
}

var errWrongName = errors.New("server name does not match the connection")

func (t *termination) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	f := t.f
	if !f.namesHost(hello.ServerName) {
		t.wrongName = hello.ServerName
		return nil, errWrongName
	}
	name := f.host
	if _, err := netip.ParseAddr(f.host); err == nil && hello.ServerName != "" {
		name = hello.ServerName
	}
	f.serverName = name
	leaf, err := f.p.CA.Leaf(name)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{*leaf}}
	if t.upstream == nil {
		config.NextProtos = httpOnly(hello.SupportedProtos)
		return config, nil
	}
	t.origin = tls.Client(t.upstream, f.originConfig(name, hello.SupportedProtos))
	if t.originErr = t.origin.HandshakeContext(hello.Context()); t.originErr != nil {
		config.NextProtos = httpOnly(hello.SupportedProtos)
		return config, nil
	}
	if proto := t.origin.ConnectionState().NegotiatedProtocol; proto != "" {
		config.NextProtos = []string{proto}
	}
	return config, nil
}

func (f *flow) originConfig(name string, protos []string) *tls.Config {
	return &tls.Config{
		ServerName:         name,
		RootCAs:            f.p.Roots,
		NextProtos:         protos,
		ClientSessionCache: f.p.sessions,
	}
}

// secure starts TLS on a later connection to the origin.
func (f *flow) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	origin := tls.Client(conn, f.originConfig(f.serverName, []string{"h2", "http/1.1"}))
	if err := origin.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return origin, nil
}

// httpOnly picks HTTP/1.1 where the client offers it, for answers that come
// from the proxy itself.
func httpOnly(offered []string) []string {
	for _, p := range offered {
		if p == "http/1.1" {
			return []string{p}
		}
	}
	for _, p := range offered {
		if p == "h2" {
			return []string{p}
		}
	}
	return nil
}

// failed records why TLS with the client did not come about. A client that
// turns the sandbox's CA down is remembered: in permissive mode its next
// connection is passed on unseen, so that the run can go on, and the rule
// learned says so.
func (t *termination) failed(err error) {
	f := t.f
	defer f.abort()
	switch {
	case t.wrongName != "":
		f.deny(LayerTLS, fmt.Sprintf("server name %q on a connection to %s", t.wrongName, f.hostPort()))
	case f.ctx.Err() != nil:
	case t.origin != nil || t.upstream == nil:
		f.deny(LayerTLS, fmt.Sprintf("the client does not accept the sandbox's CA: %v", err))
		if t.upstream != nil && t.originErr == nil && f.p.View().Permissive {
			f.p.pinned.add(f.host, f.proc.Path)
			f.recordCarried(Raw, true)
		}
	default:
		f.deny(LayerTLS, fmt.Sprintf("malformed TLS: %v", err))
	}
}

// undeclared looks into a terminated connection whose ends agreed on no
// protocol by ALPN.
func (f *flow) undeclared(client *tls.Conn, p plan) {
	s, prefix := listen(client, nil, 3*time.Second)
	if s == speaksHTTP {
		f.p.toOrigin.give(newFlowConn(f, client, prefix))
		return
	}
	f.opaqueTLS(client, prefix, p)
}

// opaqueTLS carries a terminated connection that is not HTTP.
func (f *flow) opaqueTLS(client *tls.Conn, prefix []byte, p plan) {
	if p.declared && !f.p.View().Permissive {
		r := f.refusedProtocol()
		f.record(Record{Kind: Raw, Outcome: Denied, Layer: r.layer, Reason: r.reason})
		f.abort()
		return
	}
	f.recordCarried(Raw, false)
	defer f.finish()
	origin := *f.first.Swap(nil)
	defer origin.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(client, origin)
		_ = client.CloseWrite()
	})
	if _, err := origin.Write(prefix); err == nil {
		_, _ = io.Copy(origin, client)
	}
	if o, ok := origin.(*tls.Conn); ok {
		_ = o.CloseWrite()
	}
	wg.Wait()
}

// explain tells a refused client why, if it speaks a protocol with words for
// it. Otherwise the connection is reset.
func (f *flow) explain(r *refusal) {
	f.refusal = r
	s, prefix := listen(f.client, f.prefix, explainWait)
	switch s {
	case speaksTLS:
		f.setTLS(TLSTerminated)
		f.scheme = "https"
		client, err := (&termination{f: f}).handshake(prefix)
		if err != nil {
			f.recordRefusal(Connect)
			f.abort()
			return
		}
		f.p.toOrigin.give(client)
	case speaksHTTP:
		f.setTLS(TLSNone)
		f.scheme = "http"
		f.p.toOrigin.give(newFlowConn(f, f.client, prefix))
	case silent:
		f.recordRefusal(Connect)
		f.abort()
	default:
		f.recordRefusal(Raw)
		f.abort()
	}
}

// recordRefusal records a refusal that could not be told.
func (f *flow) recordRefusal(kind Kind) {
	f.record(Record{Kind: kind, Outcome: Denied, Evidence: f.refusal.evidence,
		Layer: f.refusal.layer, Reason: f.refusal.reason})
}

// pinned remembers which clients do not trust the sandbox's CA, and for which
// host.
type pinned struct {
	mu   sync.Mutex
	seen map[[2]string]bool
}

// maxPinned bounds what is remembered.
const maxPinned = 4096

func (p *pinned) add(host, binary string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = make(map[[2]string]bool)
	}
	if len(p.seen) < maxPinned {
		p.seen[[2]string{host, binary}] = true
	}
}

func (p *pinned) has(host, binary string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[[2]string{host, binary}]
}
