// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"
)

const bodyLimit = 64 << 10

// requestFlags are what to ask for.
type requestFlags struct {
	method, body string
	upload       int64
	header       headers
}

func (f *requestFlags) register(o *options) {
	f.header = headers{}
	o.StringVar(&f.method, "X", "", "")
	o.StringVar(&f.body, "d", "", "")
	o.Int64Var(&f.upload, "upload", 0, "")
	o.Var(f.header, "H", "")
}

func (f *requestFlags) request(ctx context.Context, url string) (*http.Request, error) {
	method, body, length := f.method, io.Reader(nil), int64(0)
	switch {
	case f.upload > 0:
		body, length = io.LimitReader(letters{}, f.upload), f.upload
	case f.body != "":
		body, length = strings.NewReader(f.body), int64(len(f.body))
	}
	if method == "" {
		method = http.MethodGet
		if body != nil {
			method = http.MethodPost
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	r.ContentLength = length
	r.Header = http.Header(f.header).Clone()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	return r, nil
}

// letters is an endless body.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

// get fetches each URL with one client, so that connections are used again.
func get(args []string) (result, error) {
	o, f := newOptions(), new(requestFlags)
	f.register(o)
	follow := o.Bool("L", false, "")
	http1 := o.Bool("http1", false, "")
	ca := o.String("ca", "", "")
	if err := o.parse(args, 1, -1); err != nil {
		return result{}, err
	}
	config, err := tlsConfig(*ca)
	if err != nil {
		return result{}, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	if *http1 {
		transport.ForceAttemptHTTP2 = false
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
	}
	client := &http.Client{Transport: transport}
	if !*follow {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return each(o.Args(), func(url string) (result, error) {
		return fetch(client, f, url, o.timeout)
	})
}

// each runs f for every target, printing all results but the last. An earlier
// failure makes the last one a failure too, so that the exit status shows it.
func each(targets []string, f func(string) (result, error)) (result, error) {
	failed := 0
	for i, target := range targets[:len(targets)-1] {
		start := time.Now()
		r, err := f(target)
		r.Command = "get"
		if emit(r, err, start) != 0 {
			failed = i + 1
		}
	}
	r, err := f(targets[len(targets)-1])
	if err == nil && failed != 0 {
		err = fmt.Errorf("this one worked, target %d did not", failed)
	}
	return r, err
}

func fetch(client *http.Client, f *requestFlags, url string, timeout time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r := result{Target: url}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			r.Hints = append(r.Hints, code)
			return nil
		},
		GotConn: func(info httptrace.GotConnInfo) {
			r.Local = info.Conn.LocalAddr().String()
			r.Remote = info.Conn.RemoteAddr().String()
		},
	})
	request, err := f.request(ctx, url)
	if err != nil {
		return r, err
	}
	response, err := client.Do(request)
	if err != nil {
		return r, err
	}
	return r, r.readResponse(response)
}

// readResponse takes everything from a response, and closes it.
func (r *result) readResponse(response *http.Response) error {
	defer response.Body.Close()
	r.Status, r.Proto, r.Header = response.StatusCode, response.Proto, response.Header
	if response.TLS != nil {
		r.setTLS(*response.TLS)
	}
	kept := &limitedBody{sum: sha256.New()}
	n, err := io.Copy(kept, response.Body)
	r.Bytes, r.Body = n, kept.text.String()
	if n > bodyLimit {
		r.SHA256 = fmt.Sprintf("%x", kept.sum.Sum(nil))
	}
	r.Trailer = response.Trailer
	if err != nil {
		return fmt.Errorf("read the body after %d bytes: %w", n, err)
	}
	return nil
}

func (r *result) setTLS(state tls.ConnectionState) {
	r.ALPN = state.NegotiatedProtocol
	if len(state.PeerCertificates) > 0 {
		r.Issuer = state.PeerCertificates[0].Issuer.CommonName
	}
}

// limitedBody keeps the start of what is written to it and sums all.
type limitedBody struct {
	text strings.Builder
	sum  hash.Hash
}

func (b *limitedBody) Write(p []byte) (int, error) {
	b.sum.Write(p)
	b.text.Write(p[:min(len(p), bodyLimit-b.text.Len())])
	return len(p), nil
}

// tlsConfig trusts the system's roots (SSL_CERT_FILE moves them), or only those
// in a file, as a client with its own trust store does.
func tlsConfig(ca string) (*tls.Config, error) {
	if ca == "" {
		return &tls.Config{}, nil
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", ca)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// connectProxy opens a tunnel and, where a path is given, asks for it inside.
func connectProxy(args []string) (result, error) {
	o := newOptions()
	plain := o.Bool("plain", false, "")
	ca := o.String("ca", "", "")
	if err := o.parse(args, 2, 3); err != nil {
		return result{}, err
	}
	proxy, target := o.Arg(0), o.Arg(1)
	r := result{Target: target}
	conn, err := net.DialTimeout("tcp", proxy, o.timeout)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(o.timeout))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return r, fmt.Errorf("read the proxy's answer: %w", err)
	}
	r.Connect = response.StatusCode
	if response.StatusCode != http.StatusOK || o.NArg() == 2 {
		return r, r.readConnect(response, reader)
	}
	if !*plain {
		config, err := tlsConfig(*ca)
		if err != nil {
			return r, err
		}
		if config.ServerName, _, err = net.SplitHostPort(target); err != nil {
			return r, err
		}
		secured := tls.Client(conn, config)
		if err := secured.Handshake(); err != nil {
			return r, fmt.Errorf("TLS inside the tunnel: %w", err)
		}
		r.setTLS(secured.ConnectionState())
		conn, reader = secured, bufio.NewReader(secured)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", o.Arg(2), target)
	if response, err = http.ReadResponse(reader, nil); err != nil {
		return r, fmt.Errorf("read the answer inside the tunnel: %w", err)
	}
	return r, r.readResponse(response)
}

// readConnect takes the body of a refusal; a 200 to CONNECT has none.
func (r *result) readConnect(response *http.Response, reader *bufio.Reader) error {
	r.Status, r.Proto, r.Header = response.StatusCode, response.Proto, response.Header
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body := io.Reader(reader)
	if response.ContentLength >= 0 {
		body = io.LimitReader(reader, response.ContentLength)
	}
	text, err := io.ReadAll(io.LimitReader(body, bodyLimit))
	r.Body, r.Bytes = string(text), int64(len(text))
	return err
}

// forwardProxy asks a proxy for an absolute-form target.
func forwardProxy(args []string) (result, error) {
	o, f := newOptions(), new(requestFlags)
	f.register(o)
	if err := o.parse(args, 2, 2); err != nil {
		return result{}, err
	}
	proxy := &url.URL{Scheme: "http", Host: o.Arg(0)}
	client := &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyURL(proxy)},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return fetch(client, f, o.Arg(1), o.timeout)
}
