// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"openshell.ai/openshell/internal/crash"
)

// handshakeWait bounds a TLS handshake with the workload, the upstream one
// within it included.
const handshakeWait = 30 * time.Second

// termination is the two handshakes of a connection whose TLS the proxy ends
// on both sides.
type termination struct {
	f        *flow
	upstream *net.TCPConn // nil: the client is only told why it is refused

	origin    *tls.Conn
	originErr error
	answered  bool  // the client was shown a certificate
	left      bool  // or would have been, but did not wait for it
	refused   error // its ClientHello was not one for this connection
}

// terminate ends TLS at the proxy, so that requests can be seen.
func (f *flow) terminate(up *net.TCPConn, prefix []byte, p plan) {
	f.setTLS(TLSTerminated)
	f.scheme = "https"
	t := &termination{f: f, upstream: up}
	client, err := t.handshake(prefix)
	if err != nil {
		up.Close()
		t.failed(err, p)
		return
	}
	if t.originErr != nil {
		up.Close()
		f.evident.Store(true) // no policy makes the origin's certificate good
		f.owe(f.refusedCertificate(t.originErr))
		f.serveHTTP(client, isHTTP2(client))
		return
	}
	switch client.ConnectionState().NegotiatedProtocol {
	case "h2", "http/1.1":
		f.offer(t.origin)
		f.serveHTTP(client, isHTTP2(client))
	case "":
		f.undeclared(client, t.origin, p)
	default:
		f.opaqueTLS(client, t.origin, nil, nil, p)
	}
}

func isHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }

// handshake completes TLS with the client, after TLS with the origin, so that
// both speak the protocol that the origin chose.
func (t *termination) handshake(prefix []byte) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(t.f.ctx, handshakeWait)
	defer cancel()
	conn := &flowConn{Conn: t.f.client, flow: t.f, prefix: prefix}
	client := tls.Server(conn, &tls.Config{GetConfigForClient: t.config})
	if err := client.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return client, nil
}

func (t *termination) config(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	f := t.f
	if !f.namesHost(hello.ServerName) {
		t.refused = f.wrongName(hello.ServerName)
		return nil, t.refused
	}
	f.serverName = f.host
	if _, err := netip.ParseAddr(f.host); err == nil && hello.ServerName != "" {
		f.serverName = hello.ServerName
	}
	leaf, err := f.p.CA.Leaf(f.serverName)
	if err != nil {
		t.refused = err
		return nil, err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{*leaf},
		// Small records spare a slow network's client a wait. Here they would only
		// cost a system call each.
		DynamicRecordSizingDisabled: true,
	}
	config.SetSessionTicketKeys([][32]byte{f.p.ticketKey})
	config.NextProtos, t.originErr = t.agree(hello)
	t.answered, t.left = true, !alive(f.client)
	return config, nil
}

// agree starts TLS with the origin and returns the protocol it chose. Answers
// of the proxy's own are HTTP, in the version that the client prefers least:
// it needs no more.
func (t *termination) agree(hello *tls.ClientHelloInfo) ([]string, error) {
	var err error
	if t.upstream != nil {
		t.origin = tls.Client(t.upstream, t.f.originConfig(hello.SupportedProtos))
		err = t.origin.HandshakeContext(hello.Context())
	}
	if t.upstream == nil || err != nil {
		for _, proto := range []string{"http/1.1", "h2"} {
			if slices.Contains(hello.SupportedProtos, proto) {
				return []string{proto}, err
			}
		}
		return nil, err
	}
	if proto := t.origin.ConnectionState().NegotiatedProtocol; proto != "" {
		return []string{proto}, nil
	}
	return nil, nil
}

func (f *flow) originConfig(protos []string) *tls.Config {
	return &tls.Config{
		ServerName:         f.serverName,
		RootCAs:            f.p.Roots(),
		NextProtos:         protos,
		ClientSessionCache: f.p.sessions,
	}
}

// secure starts TLS on a later connection to the origin.
func (f *flow) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	protos := []string{"http/1.1"}
	if f.http2 { // otherwise the flow's transport could not speak it
		protos = []string{"h2", "http/1.1"}
	}
	origin := tls.Client(conn, f.originConfig(protos))
	if err := origin.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return origin, nil
}

// failed records why TLS with the client did not come about. A client that
// turns the sandbox's CA down is remembered: in permissive mode its next
// connection is passed on unseen, so that the run can go on, and the rule
// learned says so.
func (t *termination) failed(err error, p plan) {
	f := t.f
	defer f.abort()
	switch {
	case f.ctx.Err() != nil: // closed by the proxy itself
	case t.refused != nil:
		f.deny(LayerTLS, t.refused.Error())
	case !t.answered:
		f.deny(LayerTLS, fmt.Sprintf("malformed TLS: %v", err))
	case t.originErr != nil:
		f.deny(LayerTLS, t.originErr.Error())
	case t.left: // as one that connects and says nothing
	default:
		if f.grant(f.p.View()).permissive && !errors.Is(err, context.DeadlineExceeded) {
			f.p.pinned.add(f.pin())
			f.recordPinned(p)
		}
		f.deny(LayerTLS, fmt.Sprintf("the client does not accept the sandbox's CA: %v", err))
	}
}

// undeclared looks into a terminated connection whose ends agreed on no
// protocol by ALPN (RFC 7301).
func (f *flow) undeclared(client, origin *tls.Conn, p plan) {
	said, greeting := firstWords(client, origin)
	if len(said) == 0 && len(greeting) == 0 {
		origin.Close()
		f.finish()
		return
	}
	if len(greeting) == 0 {
		var s speech
		if s, said = listen(client, said, helloWait); s == speaksHTTP {
			f.offer(origin)
			f.serveHTTP(&flowConn{Conn: client, flow: f, prefix: said}, speaksHTTP2(said))
			return
		}
	}
	f.opaqueTLS(client, origin, said, greeting, p)
}

// opaqueTLS carries a terminated connection that is not HTTP, and on which
// each end has said something already.
func (f *flow) opaqueTLS(client, origin *tls.Conn, said, greeting []byte, p plan) {
	defer origin.Close()
	if !f.admitOpaque(p) {
		return
	}
	defer f.finish()
	defer context.AfterFunc(f.ctx, func() { origin.NetConn().Close() })()
	var wg sync.WaitGroup
	wg.Go(func() {
		if !crash.Contain("what an origin sends", func() { passTLS(client, origin, greeting) }) {
			f.abort()
		}
	})
	passTLS(origin, client, said)
	wg.Wait()
}

// passTLS is pass for terminated connections.
func passTLS(to, from *tls.Conn, first []byte) {
	_, err := to.Write(first)
	if err == nil {
		_, err = io.Copy(to, from)
	}
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		to.NetConn().Close()
		from.NetConn().Close()
	}
}

// explain tells a refused client why, if it speaks a protocol with words for
// it. Otherwise the connection is reset.
func (f *flow) explain(r *refusal) {
	f.owe(r)
	s, prefix := listen(f.client, f.prefix, explainWait)
	switch s {
	case speaksTLS:
		f.setTLS(TLSTerminated)
		f.scheme = "https"
		client, err := (&termination{f: f}).handshake(prefix)
		if err != nil {
			f.abort()
			return
		}
		f.serveHTTP(client, isHTTP2(client))
	case speaksHTTP:
		f.setTLS(TLSNone)
		f.scheme = "http"
		f.serveHTTP(&flowConn{Conn: f.client, flow: f, prefix: prefix}, speaksHTTP2(prefix))
	case silent:
		f.abort()
	default:
		f.setTLS(TLSNone)
		f.recordOwed(Raw)
		f.abort()
	}
}
