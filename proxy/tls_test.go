// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/test/fakenet"
)

const l4Only = "{host: " + weather + ", port: 443}\n{host: mail.example, port: 25}\n{host: echo.example, port: 7}\n{host: tls.example, port: 8883}"

// distrusting is a client whose trust store the sandbox's CA is not in.
func (r *room) distrusting(host string) *tls.Config {
	return &tls.Config{RootCAs: roots(r.t), ServerName: host}
}

func TestL4OnlyIsSplicedUntouched(t *testing.T) {
	for _, tt := range []struct {
		name string
		view decision.Snapshot
	}{
		{"l4", enforcing(l4Only)},
		{"l4 in permissive mode", permissive(l4Only)},
		{"tls: skip", enforcing("{host: " + weather + ", port: 443, tls: skip}")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRoom(t, tt.view)
			conn := r.mustDialTLS(weather+":443", r.distrusting(weather)) // the origin's own certificate
			r.say(conn, "DELETE /any HTTP/1.1\r\nHost: "+weather+"\r\nConnection: close\r\n\r\n").echo(t)
			r.want("connect allowed l4 " + weather + ":443 policy=p")
		})
	}
}

func TestServerNameMustBeTheConnections(t *testing.T) {
	for _, tt := range []struct {
		name  string
		view  decision.Snapshot
		first string
		tls   string
	}{
		{"spliced", enforcing(l4Only), "allowed l4 " + weather + ":443 policy=p", ""},
		{"skip", enforcing("{host: " + weather + ", port: 443, tls: skip}"), "allowed l4 " + weather + ":443 policy=p", ""},
		{"terminated", enforcing(rest), "allowed l4 " + weather + ":443 policy=p", " tls=terminated"},
		{"permissive", permissive(""), "logged l4 " + weather + ":443 " + empty, " tls=terminated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRoom(t, tt.view)
			conn := tls.Client(r.mustDial(weather+":443"), r.trust(fakenet.FrontedHost))
			if err := conn.Handshake(); err == nil {
				t.Error("the handshake for another server succeeded")
			}
			r.want("connect "+tt.first,
				"connect denied tls "+weather+":443"+tt.tls+` (server name "fronted.example" on a connection to `+weather+":443)")
			if seen := internet.Requests(); len(seen) != 0 {
				t.Errorf("reached %v", seen)
			}
		})
	}
}

func TestUpstreamCertificatesAreVerifiedInEveryMode(t *testing.T) {
	for _, host := range []string{fakenet.ExpiredHost, fakenet.UntrustedHost, fakenet.MisnamedHost} {
		rule := "{host: " + host + ", port: 443, protocol: rest, access: full}"
		for _, v := range []decision.Snapshot{permissive(rule), enforcing(rule)} {
			r := newRoom(t, v)
			for i, http2 := range []bool{false, true} {
				resp := r.get(r.client(http2), "https://"+host+"/x")
				r.await(2 * (i + 1))
				if resp.StatusCode != 502 || !strings.HasPrefix(resp.text, `{"error":"upstream_tls_failed","detail":"TLS connection to `+host+`:443 failed: tls: failed to verify`) {
					t.Errorf("%s: answer %d %s", host, resp.StatusCode, resp.text)
				}
			}
			records := r.records()
			if len(records) != 4 {
				t.Fatalf("%d records", len(records))
			}
			for _, i := range []int{1, 3} {
				if rec := records[i]; rec.Outcome != decision.Denied || rec.Layer != LayerTLS || rec.Evidence || rec.Status != 502 {
					t.Errorf("record %s", line(rec))
				}
			}
			if len(internet.Requests()) != 0 {
				t.Error("a request reached the origin")
			}
		}
	}
}

// Where no endpoint has its requests decided, permissive mode leaves the origin's
// certificate to the client.
func TestOriginsCertificateIsTheClientsInPermissiveMode(t *testing.T) {
	for _, host := range []string{fakenet.ExpiredHost, fakenet.UntrustedHost, fakenet.MisnamedHost} {
		r := newRoom(t, permissive(""))
		conn := tls.Client(r.mustDial(host+":443"), &tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0]; got.CheckSignatureFrom(r.proxy.CA.Certificate()) == nil {
			t.Errorf("%s: the certificate is the sandbox's: %s", host, got.Issuer)
		}
		conn.Close()
		r.await(2)
		if rec := r.records()[1]; rec.Outcome != decision.Logged || !rec.TLSSkip || !rec.Evidence || rec.TLSFault == "" {
			t.Errorf("%s: record %s", host, line(rec))
		}
	}
}

const rejected = "(the client does not accept the sandbox's CA: remote error: tls: bad certificate)"

func TestPinningClientIsSplicedNextTimeInPermissiveMode(t *testing.T) {
	r := newRoom(t, permissive(""))
	conn := tls.Client(r.mustDial(weather+":443"), r.distrusting(weather))
	if err := conn.Handshake(); err == nil {
		t.Fatal("the first connection was not terminated")
	}
	r.await(3)
	second := r.mustDialTLS(weather+":443", r.distrusting(weather))
	r.say(second, "GET /x HTTP/1.1\r\nHost: "+weather+"\r\nConnection: close\r\n\r\n").echo(t)
	second.Close()
	r.await(5)
	// Another port of the host is another service.
	plain := r.mustDial(weather + ":80")
	r.say(plain, "GET /x HTTP/1.1\r\nHost: "+weather+"\r\nConnection: close\r\n\r\n").echo(t)
	r.await(7)
	fronting := tls.Client(r.mustDial(weather+":443"), r.distrusting(fakenet.FrontedHost))
	if err := fronting.Handshake(); err == nil {
		t.Error("a pinned client reached another server")
	}
	r.want(
		"connect logged l4 "+weather+":443 "+empty,
		"raw logged l4 "+weather+":443 tls=terminated EVIDENCE skip "+empty,
		"connect denied tls "+weather+":443 tls=terminated "+rejected,
		"connect logged l4 "+weather+":443 "+empty,
		"raw logged l4 "+weather+":443 tls=spliced EVIDENCE skip "+empty,
		"connect logged l4 "+weather+":80 "+empty,
		"request logged l4 "+weather+":80 GET http:/x 200 tls=none EVIDENCE "+empty,
		"connect logged l4 "+weather+":443 "+empty,
		`connect denied tls `+weather+`:443 (server name "fronted.example" on a connection to `+weather+":443)",
	)
}

// A client that does not wait for a slow origin has turned nothing down.
func TestClientThatLeavesIsNotPinning(t *testing.T) {
	asked, left := make(chan struct{}, 1), make(chan struct{})
	r := newRoom(t, permissive(""), func(_ *room, c *Config) {
		roots := c.Roots
		c.Roots = func() *x509.CertPool { // asked for before the origin's TLS
			asked <- struct{}{}
			<-left
			return roots()
		}
	})
	conn := r.mustDial(weather + ":443")
	hello := make(chan error, 1)
	go func() { hello <- tls.Client(conn, r.distrusting(weather)).Handshake() }()
	<-asked
	conn.Close()
	close(left)
	if err := <-hello; err == nil {
		t.Fatal("a closed connection's handshake was completed")
	}
	r.await(2)
	r.want(
		"connect logged l4 "+weather+":443 "+empty,
		"connect logged l4 "+weather+":443 tls=terminated EVIDENCE "+empty,
	)
}

func TestPinningClientFailsClosedWhenEnforcing(t *testing.T) {
	r := newRoom(t, permissive(rest))
	for range 2 { // the second time in enforcing mode, when it is remembered
		conn := tls.Client(r.mustDial(weather+":443"), r.distrusting(weather))
		if err := conn.Handshake(); err == nil {
			t.Error("the connection was not terminated")
		}
		r.await(3)
		v := enforcing(rest)
		r.view.Store(&v)
	}
	r.want(
		"connect allowed l4 "+weather+":443 policy=p",
		"raw logged l7 "+weather+":443 policy=p tls=terminated skip (the endpoint's requests cannot be seen: the client does not accept the sandbox's CA)",
		"connect denied tls "+weather+":443 tls=terminated "+rejected,
		"connect allowed l4 "+weather+":443 policy=p",
		"connect denied tls "+weather+":443 tls=terminated "+rejected,
	)
}

func TestServerFirstProtocol(t *testing.T) {
	for _, tt := range []struct {
		view decision.Snapshot
		want []string
	}{
		{enforcing(l4Only), []string{"connect allowed l4 mail.example:25 policy=p"}},
		{permissive(""), []string{"connect logged l4 mail.example:25 " + empty, "raw logged l4 mail.example:25 tls=none EVIDENCE " + empty}},
		{permissive("{host: mail.example, port: 25, protocol: rest, access: full}"), []string{
			"connect allowed l4 mail.example:25 policy=p",
			"raw logged l7 mail.example:25 policy=p tls=none (the endpoint's protocol is HTTP, and this is not HTTP)"}},
	} {
		r := newRoom(t, tt.view)
		conn := r.mustDial("mail.example:25")
		readLine(t, conn, fakenet.MailBanner+"\r\n")
		io.WriteString(conn, "EHLO me\r\n")
		readLine(t, conn, "250 ok\r\n")
		io.WriteString(conn, "QUIT\r\n")
		if b, err := io.ReadAll(conn); err != nil || string(b) != "221 bye\r\n" {
			t.Errorf("read %q, %v", b, err)
		}
		conn.Close()
		r.want(tt.want...)
	}
}

func readLine(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

func TestOtherProtocolsOnADeclaredEndpointAreRefused(t *testing.T) {
	for _, host := range []string{"mail.example:25", "echo.example:7", "tls.example:8883"} {
		name, port, _ := strings.Cut(host, ":")
		r := newRoom(t, enforcing("{host: "+name+", port: "+port+", protocol: rest, access: full}"))
		var conn net.Conn
		if name == "tls.example" {
			conn = r.mustDialTLS(host, r.trust(name))
		} else {
			conn = r.dialToBeReset(host)
		}
		if name != "mail.example" {
			conn.Write([]byte("\x00binary"))
		}
		if n, err := conn.Read(make([]byte, 100)); err == nil {
			t.Errorf("%s: read %d bytes", host, n)
		}
		how := "none"
		if name == "tls.example" {
			how = "terminated"
		}
		r.want("connect allowed l4 "+host+" policy=p",
			"raw denied l7 "+host+" policy=p tls="+how+" (the endpoint's protocol is HTTP, and this is not HTTP)")
	}
}

func TestTLSThatIsNotHTTP(t *testing.T) {
	for _, protos := range [][]string{nil, {"mqtt"}} {
		r := newRoom(t, permissive(""))
		conn := r.mustDialTLS("tls.example:8883", r.trust("tls.example", protos...))
		if got := conn.ConnectionState().NegotiatedProtocol; protos != nil && got != "mqtt" {
			t.Errorf("negotiated %q", got)
		}
		io.WriteString(conn, "\x00hello")
		readLine(t, conn, "\x00hello")
		conn.CloseWrite()
		if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
			t.Errorf("after the half-close: %q, %v", b, err)
		}
		r.want("connect logged l4 tls.example:8883 "+empty, "raw logged l4 tls.example:8883 tls=terminated EVIDENCE "+empty)
	}
}

func TestHTTPSWithoutALPN(t *testing.T) {
	r := newRoom(t, enforcing(rest))
	conn := r.mustDialTLS(weather+":443", r.trust(weather))
	time.Sleep(100 * time.Millisecond) // a client may think before it speaks
	r.say(conn, "GET /ok/1 HTTP/1.1\r\nHost: "+weather+"\r\n\r\n").echo(t)
	resp := r.say(conn, "GET /no HTTP/1.1\r\nHost: "+weather+"\r\n\r\n")
	checkRefusal(t, resp, 403, deniedRequest)
}

func TestHalfClose(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(l4Only), permissive("")} {
		r := newRoom(t, v)
		conn := r.mustDial("echo.example:7")
		io.WriteString(conn, "\x00last words")
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(conn); err != nil || string(b) != "\x00last words" {
			t.Errorf("read %q, %v", b, err)
		}
	}
}

func TestResumedSession(t *testing.T) {
	r := newRoom(t, permissive(""))
	config := r.trust(weather, "http/1.1")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		conn := r.mustDialTLS(weather+":443", config)
		r.say(conn, "GET /x HTTP/1.1\r\nHost: "+weather+"\r\nConnection: close\r\n\r\n").echo(t)
		if resumed := conn.ConnectionState().DidResume; resumed != (i == 1) {
			t.Errorf("connection %d resumed: %v", i, resumed)
		}
		conn.Close()
	}
}

func TestClientThatSaysNothing(t *testing.T) {
	r := newRoom(t, permissive(""))
	r.mustDial("web.example:80").Close()
	r.await(2)
	conn := r.mustDialTLS(weather+":443", r.trust(weather, "h2"))
	conn.Close()
	r.want(
		"connect logged l4 web.example:80 "+empty,
		"connect logged l4 web.example:80 EVIDENCE "+empty,
		"connect logged l4 "+weather+":443 "+empty,
		"connect logged l4 "+weather+":443 tls=terminated EVIDENCE "+empty,
	)
}

func TestMalformedTLSIsRefused(t *testing.T) {
	for _, v := range []decision.Snapshot{permissive(""), enforcing(l4Only), enforcing(rest)} {
		r := newRoom(t, v)
		conn := r.mustDial(weather + ":443")
		conn.Write([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff")) // a ClientHello of one byte
		if b, err := io.ReadAll(conn); err == nil && len(b) > 7 {
			t.Errorf("read %x", b)
		}
		r.await(2)
		if rec := r.nth(1); len(r.records()) != 2 || rec.Outcome != decision.Denied || rec.Layer != LayerTLS || rec.Evidence {
			t.Errorf("record %s", line(rec))
		}
	}
}

func TestSlowClientHelloInPieces(t *testing.T) {
	for _, v := range []decision.Snapshot{permissive(""), enforcing(l4Only)} {
		r := newRoom(t, v)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		config := r.trust(weather)
		config.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768}
		conn := tls.Client(dribble{r.mustDial(weather + ":443")}, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			t.Fatal(err)
		}
		r.say(conn, "GET /x HTTP/1.1\r\nHost: "+weather+"\r\nConnection: close\r\n\r\n").echo(t)
	}
}
