// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"openshell.ai/openshell/internal/decision"
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
		{"\x16\x03", speaksTLS, false},
		{"\x16\x03\x01", speaksTLS, false},
		{"\x16\x03\x04", speaksTLS, false},
		{"\x16\x03\x05", speaksTLS, false},
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

// flowTo is a flow that goes nowhere.
func flowTo(host string) *tcpFlow {
	return nobody.newFlow(context.Background(), nil, &endpoint{host: host, port: 443})
}

// handling is how a flow's TLS is handled, "" while that is not known.
func handling(f *tcpFlow) string {
	how, _ := f.tls.Load().(string)
	return how
}

// nobody is the proxy of flows that go nowhere.
var nobody = New(Config{Snapshot: func() decision.Snapshot { return decision.Snapshot{Effective: compiled("", false)} }})

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
		{"a.example", said("a.example."), TLSSpliced, true}, // crypto/tls leaves the dot out
		{"a.example", bytes.Replace(said("a.exampleX"), []byte("a.exampleX"), []byte("a.example."), 1), "", false},
		{"a.example", []byte("\x16\x99\x99\x99\x99\x99"), TLSNone, true},
		{"a.example", []byte("\x16"), TLSNone, true}, // and no more
		{"a.example", []byte("\x80"), TLSNone, true},
		{"a.example", []byte("\x16\x01\x00\x00\x01\x00\x00\x00mongo"), TLSNone, true},
		{"a.example", []byte("\x14\x00\x00\x00\x2a"), TLSNone, true},
		{"a.example", []byte("\xff\xfb\x01"), TLSNone, true},                     // telnet
		{"a.example", []byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"), TLSNone, true}, // PostgreSQL's SSLRequest
		{"a.example", []byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff"), "", false},
		{"a.example", nil, TLSNone, true},
	} {
		f := flowTo(tt.host)
		read, err := f.checkHello(scripted{r: bytes.NewReader(tt.in)}, nil)
		if (err == nil) != tt.ok || handling(f) != tt.tls {
			t.Errorf("%s, %.20q: TLS %q, %v", tt.host, tt.in, handling(f), err)
		}
		if err == nil && len(read) > len(tt.in) {
			t.Errorf("%s: more read than said", tt.host)
		}
	}
}

// A server that goes on after what is before or around a ClientHello would take one
// for another name: nothing may be there.
func TestWhatBeginsLikeTLSIsAWholeHello(t *testing.T) {
	right, wrong := hello(t, &tls.Config{ServerName: "a.example"}), hello(t, &tls.Config{ServerName: "b.example"})
	record := func(kind byte, body ...byte) []byte {
		return append([]byte{kind, 3, 1, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	pieces := fragmented(right, 100)
	version := func(hello []byte, major, minor byte) []byte {
		hello = bytes.Clone(hello)
		hello[1], hello[2] = major, minor
		return hello
	}
	// The extension is 00 00, a length, the list's, a type, the name's, and the name.
	sni := bytes.Index(right, []byte("\x00\x00\x00\x0e\x00\x0c\x00\x00\x09a.example"))
	if sni < 0 {
		t.Fatal("no server name")
	}
	edited := func(at int, b byte) []byte {
		hello := bytes.Clone(right)
		hello[sni+at] = b
		return hello
	}
	with := func(extension string) []byte {
		body := bytes.Clone(right[recordHeader:])
		end := sni - recordHeader
		body = slices.Concat(body[:end], []byte(extension), body[end:])
		grow := func(at int) {
			binary.BigEndian.PutUint16(body[at:], binary.BigEndian.Uint16(body[at:])+uint16(len(extension)))
		}
		grow(2) // the message's length, of three bytes
		at := handshakeHeader + 34
		at += 1 + int(body[at])
		at += 2 + int(binary.BigEndian.Uint16(body[at:]))
		at += 1 + int(body[at])
		grow(at)
		return record(22, body...)
	}
	for name, tt := range map[string]struct {
		in []byte
		ok bool
	}{
		"a hello":                       {right, true},
		"for another":                   {wrong, false},
		"in pieces":                     {pieces, true},
		"with data behind it":           {slices.Concat(right, record(20, 1), record(23, 1, 2, 3)), true},
		"of another version":            {version(right, 3, 5), true},
		"of another, for another":       {version(wrong, 3, 0x7f), false},
		"of version 2":                  {version(right, 2, 0), false},
		"of version 0":                  {version(wrong, 0, 0), false},
		"of version 15":                 {version(wrong, 15, 0xff), false},
		"an alert before":               {slices.Concat(record(21, 1, 0), wrong), false},
		"a harmless alert before":       {slices.Concat(record(21, 1, 0), right), false},
		"an alert of version 0":         {slices.Concat([]byte{21, 0, 0, 0, 2, 1, 0}, wrong), false},
		"an alert alone":                {record(21, 1, 90), false},
		"change_cipher_spec before":     {slices.Concat(record(20, 1), wrong), false},
		"application data before":       {slices.Concat(record(23, 1), wrong), false},
		"heartbeat before":              {slices.Concat(record(24, 1, 0, 0), wrong), false},
		"an empty record before":        {slices.Concat(record(22), wrong), false},
		"HelloRequest before":           {slices.Concat(record(22, 0, 0, 0, 0), wrong), false},
		"HelloRequest in its record":    {record(22, append([]byte{0, 0, 0, 0}, wrong[recordHeader:]...)...), false},
		"another hello in its record":   {record(22, append(bytes.Clone(right[recordHeader:]), wrong[recordHeader:]...)...), false},
		"an alert in the middle":        {slices.Concat(pieces[:105], record(21, 1, 0), pieces[105:]), false},
		"an empty record in the middle": {slices.Concat(pieces[:105], record(22), pieces[105:]), false},
		"a version in the middle":       {slices.Concat(pieces[:105], []byte{22, 2}, pieces[107:]), false},
		"cut off":                       {right[:len(right)-1], false},
		"SSL 2":                         {append([]byte{0x80, 46, 1, 3, 1, 0, 3, 0, 0, 0, 32, 0, 0, 47}, make([]byte, 34)...), false},
		"SSL 2 of version 2":            {append([]byte{0x80, 46, 1, 0, 2, 0, 3, 0, 0, 0, 32, 0, 0, 47}, make([]byte, 34)...), false},
		"of no extensions":              {record(22, slices.Concat([]byte{1, 0, 0, 41, 3, 3}, make([]byte, 32), []byte{0, 0, 2, 0, 47, 1, 0})...), true},
		"of GREASE":                     {with("\x1a\x1a\x00\x00"), true},
		"of an outer hello (ECH)":       {with("\xfe\x0d\x00\x03abc"), true},
		"two extensions":                {with("\x00\x00\x00\x0e\x00\x0c\x00\x00\x09a.example"), false},
		"two extensions, one empty":     {with("\x00\x00\x00\x00"), false},
		"a name of another type":        {edited(6, 1), false},
		"an empty list":                 {edited(5, 0), false},
		"an empty name":                 {edited(8, 0), false},
		"a shorter name":                {edited(8, 8), false},
		"a dot at the end":              {edited(8+9, '.'), false},
		"a NUL":                         {edited(8+9, 0), false},
		"in capitals":                   {edited(9, 'A'), true},
	} {
		for split := range 8 { // into segments
			f := flowTo("a.example")
			n := min(split, len(tt.in))
			conn := scripted{r: io.MultiReader(bytes.NewReader(tt.in[:n]), iotest.OneByteReader(bytes.NewReader(tt.in[n:])))}
			read, err := f.checkHello(conn, nil)
			if (err == nil) != tt.ok || tt.ok && handling(f) != TLSSpliced {
				t.Errorf("%s: TLS %q, %v", name, handling(f), err)
				break
			}
			if rest, _ := io.ReadAll(conn); err == nil && !bytes.Equal(append(read, rest...), tt.in) {
				t.Errorf("%s: what is passed on is not what was said", name)
			}
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
	eventually(t, "the upstream has spoken", func() bool { return hasSpoken(upstream) })
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
	eventually(t, "a closed connection is not alive", func() bool { return !alive(upstream) })
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
