package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		in        string
		want      speech
		undecided bool
	}{
		{"", silent, true},
		{"G", opaque, true},
		{"GET", opaque, true},
		{"GET ", opaque, true},
		{"GET /", speaksHTTP, false},
		{"GET h", opaque, true},
		{"GET http:/", opaque, true},
		{"GET HTTP://x/", speaksHTTP, false},
		{"GET https://x/", speaksHTTP, false},
		{"GET key\r\n", opaque, false},
		{"NICK henry\r\n", opaque, false},
		{"OPTIONS *", speaksHTTP, false},
		{"CONNECT a.example:443", speaksHTTP, false},
		{"PROPFIND /", speaksHTTP, false},
		{"VERSION-CONTROL /", speaksHTTP, false},
		{"PRI * HTTP/2.0\r\n", speaksHTTP, false},
		{"SSH-2.0-OpenSSH\r\n", opaque, false},
		{"EHLO me\r\n", opaque, false},
		{strings.Repeat("A", longestMethod), opaque, true},
		{strings.Repeat("A", longestMethod+1), opaque, false},
		{" GET /", opaque, false},
		{"get /", opaque, false},
		{"\x16", speaksTLS, true},
		{"\x16\x03", speaksTLS, true},
		{"\x16\x03\x01", speaksTLS, false},
		{"\x16\x03\x04", speaksTLS, false},
		{"\x16\x03\x05", opaque, false},
		{"\x16\x02\x01", opaque, false},
		{"\x00\x00\x00\x08", opaque, false},
	} {
		got, undecided := classify([]byte(tt.in))
		if got != tt.want || undecided != tt.undecided {
			t.Errorf("classify(%q) = %d, %v; want %d, %v", tt.in, got, undecided, tt.want, tt.undecided)
		}
	}
}

// dribble writes a few bytes at a time.
type dribble struct{ net.Conn }

func (d dribble) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += 100 {
		if _, err := d.Conn.Write(b[i:min(i+100, len(b))]); err != nil {
			return i, err
		}
		time.Sleep(time.Millisecond)
	}
	return len(b), nil
}

// hello returns what a client says first.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	go tls.Client(client, config).Handshake()
	defer client.Close()
	b := make([]byte, 64<<10)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// fragmented splits a hello's one record into records of size bytes each (RFC
// 8446 section 5.1 allows it).
func fragmented(record []byte, size int) []byte {
	var out []byte
	for rest := record[5:]; len(rest) > 0; {
		n := min(size, len(rest))
		out = append(out, record[0], record[1], record[2], byte(n>>8), byte(n))
		out = append(out, rest[:n]...)
		rest = rest[n:]
	}
	return out
}

// scripted is a connection on which text comes in, in pieces.
type scripted struct {
	net.Conn
	r io.Reader
}

func (s scripted) Read(b []byte) (int, error)      { return s.r.Read(b[:min(len(b), 700)]) }
func (s scripted) Write(b []byte) (int, error)     { return len(b), nil }
func (s scripted) Close() error                    { return nil }
func (s scripted) SetReadDeadline(time.Time) error { return nil }
func (s scripted) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (s scripted) RemoteAddr() net.Addr            { return &net.TCPAddr{} }

func TestReadHello(t *testing.T) {
	plain := hello(t, &tls.Config{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519}})
	quantum := hello(t, &tls.Config{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		NextProtos: []string{strings.Repeat("x", 250), strings.Repeat("y", 250)}})
	if len(quantum) < 1500 {
		t.Fatalf("the hello is only %d bytes long", len(quantum))
	}
	for _, in := range [][]byte{plain, quantum, fragmented(plain, 7), fragmented(quantum, 100), fragmented(quantum, 1000)} {
		for _, have := range []int{0, 1, 5, len(in) / 2, len(in)} {
			const early = "early data"
			conn := scripted{r: io.MultiReader(bytes.NewReader(in[have:]), strings.NewReader(early))}
			name, read, err := readHello(conn, in[:have:have])
			if err != nil || name != "a.example" {
				t.Errorf("%d bytes after %d: %q, %v", len(in), have, name, err)
			}
			rest, _ := io.ReadAll(conn)
			if got := string(read) + string(rest); got != string(in)+early {
				t.Errorf("%d bytes after %d: what is passed on differs from what was said", len(in), have)
			}
		}
	}
}

func TestReadHelloBounds(t *testing.T) {
	endless := append([]byte{22, 3, 1, 0x3f, 0xff, 1, 0, 0xff, 0xf0}, make([]byte, 0x3fff-4)...)
	record := append([]byte{22, 3, 1, 0x3f, 0xff}, make([]byte, 0x3fff)...)
	conn := scripted{r: io.MultiReader(bytes.NewReader(endless), bytes.NewReader(bytes.Repeat(record, 10)))}
	if _, read, err := readHello(conn, nil); err == nil || len(read) > 2*maxHello {
		t.Errorf("read %d bytes, %v", len(read), err)
	}
	cut := hello(t, &tls.Config{ServerName: "a.example"})
	conn = scripted{r: bytes.NewReader(cut[:100])}
	if _, _, err := readHello(conn, nil); err == nil {
		t.Error("half a hello was taken for one")
	}
}

// nobody is the proxy of flows that go nowhere.
var nobody = New(Config{View: func() View { return View{Engine: engine("", false)} }})

func TestCheckHello(t *testing.T) {
	said := func(name string) []byte { return hello(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}) }
	for _, tt := range []struct {
		host string
		in   []byte
		tls  string
		ok   bool
	}{
		{"a.example", said("a.example"), TLSSpliced, true},
		{"a.example", said("A.Example"), TLSSpliced, true},
		{"a.example", said("b.example"), "", false},
		{"a.example", said(""), TLSSpliced, true},
		{"45.64.45.12", said("b.example"), TLSSpliced, true},
		{"a.example", []byte("SSH-2.0"), TLSNone, true},
		{"a.example", []byte("\x16\x99\x99\x99\x99\x99"), TLSNone, true},
		{"a.example", []byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff"), "", false},
		{"a.example", nil, TLSNone, true},
	} {
		f := &flow{p: nobody, host: tt.host, port: 443}
		read, err := f.checkHello(scripted{r: bytes.NewReader(tt.in)}, nil)
		if (err == nil) != tt.ok || f.tls != tt.tls {
			t.Errorf("%s, %.20q: TLS %q, %v", tt.host, tt.in, f.tls, err)
		}
		if err == nil && len(read) > len(tt.in) {
			t.Errorf("%s: more read than said", tt.host)
		}
	}
}

func TestFirstSpeakerEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair := func() (near, far *net.TCPConn) {
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		return a.(*net.TCPConn), b.(*net.TCPConn)
	}
	client, clientFar := pair()
	upstream, upstreamFar := pair()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	firstSpeaker(ctx, client, upstream)
	upstreamFar.Write([]byte("x"))
	if firstSpeaker(t.Context(), client, upstream) {
		t.Error("the upstream spoke first")
	}
	upstream.Read(make([]byte, 1))
	clientFar.Write([]byte("x"))
	if !firstSpeaker(t.Context(), client, upstream) {
		t.Error("the client spoke first")
	}
	upstreamFar.Write([]byte("x"))
	for late := time.Now().Add(patience); !hasSpoken(upstream) && time.Now().Before(late); time.Sleep(time.Millisecond) {
	}
	for range 20 {
		if !firstSpeaker(t.Context(), client, upstream) {
			t.Fatal("the client spoke, and has not heard the upstream")
		}
	}
	upstream.Read(make([]byte, 1))
	if !alive(upstream) {
		t.Error("an open connection is not alive")
	}
	upstreamFar.Close()
	for late := time.Now().Add(patience); alive(upstream); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatal("a closed connection is alive")
		}
	}
}

func TestCA(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("PEM holds no certificate")
	}
	long := strings.Repeat("a", 60) + ".example.com"
	for _, host := range []string{"a.example", "a_b.example", "45.64.45.12", "2a0e:b107::1", long} {
		leaf, err := ca.Leaf(host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if again, _ := ca.Leaf(host); again != leaf {
			t.Errorf("%s: another certificate the second time", host)
		}
		// RFC 5280 section 4.2.1.1: strict verifiers want both.
		if len(leaf.Leaf.AuthorityKeyId) == 0 || !bytes.Equal(leaf.Leaf.AuthorityKeyId, ca.Certificate().SubjectKeyId) {
			t.Errorf("%s: authority key %x, CA's %x", host, leaf.Leaf.AuthorityKeyId, ca.Certificate().SubjectKeyId)
		}
	}
	if _, err := ca.Leaf("naïve.example"); err == nil {
		t.Error("a name that is no DNS name got a certificate")
	}
	for i := range maxLeaves + 1 {
		ca.leaves[strings.Repeat("x", i%60+1)+"."+string(rune('a'+i%26))+strings.Repeat("y", i/60)] = nil
	}
	if _, err := ca.Leaf("one-more.example"); err != nil || len(ca.leaves) > maxLeaves {
		t.Errorf("%d certificates are kept, %v", len(ca.leaves), err)
	}
}

func TestPinnedIsBounded(t *testing.T) {
	var p pinned
	for i := range maxPinned + 10 {
		p.add(pin{port: uint16(i), host: "a.example"})
	}
	if len(p.seen) != maxPinned || !p.has(pin{host: "a.example", port: 1}) || p.has(pin{host: "b.example", port: 1}) {
		t.Errorf("%d pins", len(p.seen))
	}
}
