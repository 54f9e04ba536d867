// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The benchmarks' clients and origins share the machine with the proxy; their
// client is in the sealed namespace and their origin in the outer one's
// internet, so that a figure holds everything between the two.

// quiet drops records, which are the sandbox's to pay for.
func quiet(_ *room, c *Config) { c.Record = func(Record) {} }

// cpu reports the processor time of an operation, which other work on the
// machine does not change. Time ranges over all goroutines and the kernel.
func cpu(b *testing.B) (stop func()) {
	b.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N), "cpu-µs/op") }
}

// BenchmarkSplice downloads over a connection that is passed on untouched.
func BenchmarkSplice(b *testing.B) {
	const size = 256 << 20
	r := newRoom(b, enforcing("{host: web.example, port: 80}"), quiet)
	b.SetBytes(size)
	buf := make([]byte, 256<<10)
	defer cpu(b)()
	for b.Loop() {
		conn, err := r.dial(b.Context(), "tcp", "web.example:80")
		if err != nil {
			b.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /bytes/%d HTTP/1.0\r\n\r\n", size)
		for {
			if _, err := conn.Read(buf); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		conn.Close()
	}
}

// BenchmarkTerminatedDownload downloads over TLS on both sides.
func BenchmarkTerminatedDownload(b *testing.B) {
	const size = 64 << 20
	r := newRoom(b, permissive(""), quiet)
	c := r.client(false)
	c.Timeout = 0
	b.SetBytes(size)
	defer cpu(b)()
	for b.Loop() {
		resp, err := c.Get(fmt.Sprintf("https://%s/bytes/%d", stream, size))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			b.Fatal(n, err)
		}
		resp.Body.Close()
	}
}

// BenchmarkRequestPath sends requests on 16 kept-alive connections at once. The
// client is as bare as can be: a request in, a status line and a body out. Beside
// the proxy and the direct way there is a plain httputil.ReverseProxy, which
// decides nothing.
func BenchmarkRequestPath(b *testing.B) {
	for _, scheme := range []string{"https", "http"} {
		for _, way := range []string{"proxy", "reverseproxy", "direct"} {
			b.Run(scheme+"/"+way, func(b *testing.B) { benchRequestPath(b, scheme, way) })
		}
	}
}

func benchRequestPath(b *testing.B, scheme, way string) {
	const workers = 16
	port := map[string]string{"https": "443", "http": "80"}[scheme]
	rules := "protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: '/bytes/*'}}]}"
	r := newRoom(b, enforcing("{host: "+stream+", port: "+port+", "+rules), quiet)
	dial, address := r.dial, stream+":"+port
	switch way {
	case "direct":
		dial = internet.DialContext
	case "reverseproxy":
		dial, address = (&net.Dialer{}).DialContext, plainReverseProxy(b, r, scheme)
	}
	conns := make(chan net.Conn, workers)
	for range workers {
		conn, err := dial(b.Context(), "tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		if scheme == "https" {
			secured := tls.Client(conn, r.trust(stream, "http/1.1"))
			if err := secured.Handshake(); err != nil {
				b.Fatal(err)
			}
			conn = secured
		}
		conns <- conn
	}
	var wg sync.WaitGroup
	work := make(chan struct{}, workers)
	for range workers {
		wg.Go(func() {
			conn := <-conns
			defer conn.Close()
			answers := bufio.NewReaderSize(conn, 4096)
			for range work {
				io.WriteString(conn, "GET /bytes/1024 HTTP/1.1\r\nHost: "+stream+"\r\n\r\n")
				resp, err := http.ReadResponse(answers, nil)
				if err != nil || resp.StatusCode != 200 {
					b.Error(resp, err)
					return
				}
				io.Copy(io.Discard, resp.Body)
			}
		})
	}
	b.ReportAllocs()
	stop := cpu(b)
	for b.Loop() {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	stop()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// plainReverseProxy serves httputil.ReverseProxy before the origin, and returns
// its address.
func plainReverseProxy(b *testing.B, r *room, scheme string) string {
	target, _ := url.Parse(scheme + "://" + stream)
	transport := &http.Transport{DialContext: internet.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots(b)},
		MaxIdleConnsPerHost: 64, DisableCompression: true}
	server := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite:   func(pr *httputil.ProxyRequest) { pr.SetURL(target) },
		Transport: transport,
	})
	if scheme == "https" {
		leaf, err := r.proxy.CA.Leaf(stream)
		if err != nil {
			b.Fatal(err)
		}
		server.TLS = &tls.Config{Certificates: []tls.Certificate{*leaf}, NextProtos: []string{"http/1.1"}}
		server.StartTLS()
	} else {
		server.Start()
	}
	b.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return server.Listener.Addr().String()
}

// BenchmarkNewConnection makes an HTTPS connection for one request.
func BenchmarkNewConnection(b *testing.B) {
	for _, way := range []string{"terminated", "spliced", "direct"} {
		b.Run(way, func(b *testing.B) {
			v := permissive("")
			if way == "spliced" {
				v = enforcing("{host: " + stream + ", port: 443}")
			}
			r := newRoom(b, v, quiet)
			config := r.trust(stream, "http/1.1")
			addr, err := r.lookup(b.Context(), stream)
			if err != nil {
				b.Fatal(err)
			}
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range work {
						var conn net.Conn
						var err error
						if way == "direct" {
							conn, err = internet.DialContext(b.Context(), "tcp", "45.64.45.13:443")
						} else {
							conn, err = r.dial(b.Context(), "tcp", net.JoinHostPort(addr.String(), "443"))
						}
						if err != nil {
							b.Error(err)
							return
						}
						secured := tls.Client(conn, config)
						io.WriteString(secured, "GET /bytes/1024 HTTP/1.1\r\nHost: "+stream+"\r\nConnection: close\r\n\r\n")
						if _, err := io.Copy(io.Discard, secured); err != nil {
							b.Error(err)
						}
						secured.Close()
					}
				})
			}
			b.ReportAllocs()
			stop := cpu(b)
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			stop()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conn/s")
		})
	}
}
