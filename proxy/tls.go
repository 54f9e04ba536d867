// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/decision"
)

// handshakeWait bounds a TLS handshake with the workload, the upstream one
// within it included.
const handshakeWait = 30 * time.Second

// termination is the two handshakes of a connection whose TLS the proxy ends
// on both sides.
type termination struct {
	f        *tcpFlow
	client   clientConn
	upstream *net.TCPConn // nil: the client is only told why it is refused

	serverName string // the origin's
	origin     *tls.Conn
	originErr  error
	wantsCert  bool // the origin asks for a client certificate

	// hello is nil unless the client may be passed on before it is answered; fault
	// is why it has to be.
	hello *helloConn
	fault error

	answered bool  // the client was shown a certificate
	left     bool  // or would have been, but did not wait for it
	refused  error // its ClientHello was not one for this connection
}

// terminate ends TLS at the proxy, so that requests can be seen.
func (f *tcpFlow) terminate(client clientConn, up *net.TCPConn, admitted *decision.Connection) {
	f.tls.Store(TLSTerminated)
	t := &termination{f: f, client: client, upstream: up}
	// An endpoint whose requests are decided stays so: what cannot be terminated is refused there.
	if f.decideNow().CanPassthrough() && !admitted.DecidesRequests() {
		t.hello = &helloConn{Conn: newFlowConn(client, f)}
	}
	secured, err := t.handshake()
	if t.fault != nil {
		up.Close()
		f.relayUnterminated(clientConn{client.TCPConn, t.hello.read}, t.fault)
		return
	}
	if err != nil {
		up.Close()
		t.failed(err, admitted)
		return
	}
	if t.originErr != nil {
		up.Close()
		f.evidenceRecorded.Store(true) // no policy makes the origin's certificate good
		t.refuse(secured, f.endpoint().refusedCertificate(t.originErr))
		return
	}
	switch secured.ConnectionState().NegotiatedProtocol {
	case "h2", "http/1.1":
		t.serve(secured, isHTTP2(secured))
	case "":
		t.undeclared(secured, admitted)
	default:
		f.opaqueTLS(secured, t.origin, nil, nil, admitted)
	}
}

// serve has the requests on a connection whose TLS has ended served.
func (t *termination) serve(conn net.Conn, version2 bool) {
	h := &httpFlow{tcpFlow: t.f, scheme: "https", serverName: t.serverName, wantsCert: t.wantsCert}
	h.offer(t.origin)
	h.serveHTTP(conn, version2)
}

// refuse answers the requests with a refusal.
func (t *termination) refuse(secured *tls.Conn, refused *refusal) {
	t.f.deferRefusal(refused)
	h := &httpFlow{tcpFlow: t.f, scheme: "https", refusal: refused}
	h.serveHTTP(secured, isHTTP2(secured))
}

func isHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }

// handshake completes TLS with the client, after TLS with the origin, so that
// both speak the protocol that the origin chose.
func (t *termination) handshake() (*tls.Conn, error) {
	wait := handshakeWait
	if t.upstream == nil { // it is refused: what only begins TLS must not hang
		wait = helloWait
	}
	ctx, cancel := context.WithTimeout(t.f.ctx, wait)
	defer cancel()
	var conn net.Conn = t.hello
	if t.hello == nil {
		conn = newFlowConn(t.client, t.f)
	}
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
	to := f.endpoint()
	t.serverName = to.host
	if hello.ServerName != "" && (to.isAddress() || f.p.shortens(to.host, hello.ServerName)) {
		t.serverName = strings.ToLower(hello.ServerName)
	}
	leaf, err := f.p.CA.Leaf(t.serverName)
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
	if t.hello != nil && hello.Context().Err() == nil {
		if t.fault = t.originFault(); t.fault != nil {
			t.hello.silent = true
			return nil, t.fault
		}
		t.hello.answered = true
	}
	t.answered, t.left = true, !alive(t.client.TCPConn)
	return config, nil
}

// agree starts TLS with the origin and returns the protocol it chose. Answers
// of the proxy's own are HTTP, in the version that the client prefers least:
// it needs no more.
func (t *termination) agree(hello *tls.ClientHelloInfo) ([]string, error) {
	var err error
	if t.upstream != nil {
		config := t.f.p.originConfig(t.f.endpoint(), t.serverName, hello.SupportedProtos)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			t.wantsCert = true
			return new(tls.Certificate), nil
		}
		t.origin = tls.Client(t.upstream, config)
		if err = t.origin.HandshakeContext(hello.Context()); err != nil && t.wantsCert {
			err = fmt.Errorf("%w: %w", errClientCertificate, err)
		}
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

// errClientCertificate says what an origin asks for that only the client may have.
var errClientCertificate = errors.New("the origin asks for a client certificate, which can be shown only where its endpoint has tls: skip")

// originFault says why the origin's TLS is better left to the client, which may make something of it that
// the proxy cannot: by a certificate of its own, or by trusting or speaking what the proxy does not.
func (t *termination) originFault() error {
	if t.wantsCert && t.originErr == nil {
		return errClientCertificate
	}
	return t.originErr
}

// helloConn is a client's connection as long as it may still be handed on with everything that was read of
// it, without a byte having been answered.
type helloConn struct {
	net.Conn
	read     []byte
	answered bool // it stays
	silent   bool // it is handed on
}

// Read implements net.Conn.
func (c *helloConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.answered {
		c.read = append(c.read, b[:n]...)
	}
	return n, err
}

// Write implements net.Conn.
func (c *helloConn) Write(b []byte) (int, error) {
	if c.silent {
		return len(b), nil
	}
	c.read = nil
	return c.Conn.Write(b)
}

func (p *Proxy) originConfig(to *endpoint, serverName string, protos []string) *tls.Config {
	config := &tls.Config{
		ServerName:         serverName,
		RootCAs:            p.Roots(),
		NextProtos:         protos,
		ClientSessionCache: p.sessions,
	}
	if p.shortens(to.host, serverName) {
		config.InsecureSkipVerify = true // it knows of one name only
		config.VerifyConnection = func(s tls.ConnectionState) error {
			return verifyEither(s.PeerCertificates, config.RootCAs, to.host, serverName)
		}
	}
	return config
}

// verifyEither is crypto/tls's verification of an origin that goes by two names.
func verifyEither(chain []*x509.Certificate, roots *x509.CertPool, names ...string) (err error) {
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	for _, options.DNSName = range names {
		if _, err = chain[0].Verify(options); err == nil {
			return nil
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
}

// secure starts TLS on a later connection to the origin.
func (h *httpFlow) secure(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	protos := []string{"http/1.1"}
	if h.http2 { // otherwise the flow's transport could not speak it
		protos = []string{"h2", "http/1.1"}
	}
	origin := tls.Client(conn, h.p.originConfig(h.endpoint(), h.serverName, protos))
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
func (t *termination) failed(err error, admitted *decision.Connection) {
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
		if f.decideNow().Permissive() && !errors.Is(err, context.DeadlineExceeded) {
			f.p.pinned.add(f.endpoint().pin())
			f.recordPinned(admitted)
		}
		f.deny(LayerTLS, fmt.Sprintf("the client does not accept the sandbox's CA: %v", err))
	}
}

// undeclared looks into a terminated connection whose ends agreed on no
// protocol by ALPN (RFC 7301).
func (t *termination) undeclared(client *tls.Conn, admitted *decision.Connection) {
	said, greeting := firstWords(client, t.origin)
	if len(said) == 0 && len(greeting) == 0 && (alive(t.client.TCPConn) || endedSide(t.client.TCPConn)) {
		_ = t.origin.CloseWrite()
		greeting = make([]byte, firstRead)
		n, _ := t.origin.Read(greeting) // it ends with the flow
		greeting = greeting[:n]
	}
	if len(said) == 0 && len(greeting) == 0 {
		t.origin.Close()
		t.f.finish()
		return
	}
	if len(greeting) == 0 {
		var s speech
		if s, said = listen(client, said, helloWait); s == speaksHTTP {
			t.serve(&flowConn{Conn: client, flow: t.f, prefix: said}, speaksHTTP2(said))
			return
		}
	}
	t.f.opaqueTLS(client, t.origin, said, greeting, admitted)
}

// opaqueTLS carries a terminated connection that is not HTTP, and on which
// each end has said something already.
func (f *tcpFlow) opaqueTLS(client, origin *tls.Conn, said, greeting []byte, admitted *decision.Connection) {
	defer origin.Close()
	if !f.admitOpaque(admitted) {
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
func (f *tcpFlow) explain(client clientConn, refused *refusal) {
	f.deferRefusal(refused)
	s, said := listen(client, client.said, explainWait)
	client.said = said
	switch s {
	case speaksTLS:
		f.tls.Store(TLSTerminated)
		t := &termination{f: f, client: client}
		secured, err := t.handshake()
		if err != nil {
			f.abort()
			return
		}
		t.refuse(secured, refused)
	case speaksHTTP:
		f.tls.Store(TLSNone)
		h := &httpFlow{tcpFlow: f, scheme: "http", refusal: refused}
		h.serveHTTP(newFlowConn(client, f), speaksHTTP2(said))
	case silent:
		f.endFTPControl()
		f.abort()
	default:
		f.tls.Store(TLSNone)
		f.recordPendingRefusal(Raw)
		f.abort()
	}
}
