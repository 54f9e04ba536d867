// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func dialTimeout(at netip.AddrPort, d time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", at.String(), d)
}

// fetch gets a URL and its whole body.
func fetch(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return response, string(body)
}

func echoed(t *testing.T, body string) Echo {
	t.Helper()
	var echo Echo
	if err := json.Unmarshal([]byte(body), &echo); err != nil {
		t.Fatalf("%v: %q", err, body)
	}
	return echo
}

func clientWith(n *Net, set func(*http.Protocols)) *http.Client {
	client := n.Client()
	transport := client.Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	set(transport.Protocols)
	return client
}

func TestAPIRecordsWhatItSaw(t *testing.T) {
	n := newNet(t)
	for _, test := range []struct {
		name, url, host, proto string
		set                    func(*http.Protocols)
	}{
		{"h2", "https://api.weather.example/v1/now?city=x", WeatherHost, "HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true) }},
		{"h1", "https://api.github.example/v1/now?city=x", GitHubHost, "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"plain", "http://web.example/v1/now?city=x", WebHost, "HTTP/1.1", func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"h2c", "http://web.example:8080/v1/now?city=x", WebHost, "HTTP/2.0", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
		{"wildcard", "https://a.cdn.example/v1/now?city=x", CDNHost, "HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true) }},
		{"literal", "https://45.64.45.10/v1/now?city=x", WeatherHost, "HTTP/2.0", func(p *http.Protocols) { p.SetHTTP2(true) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			n.Reset()
			// Longer than what is echoed.
			sent := strings.Repeat("x", echoLimit+10)
			response, err := clientWith(n, test.set).Post(test.url, "text/plain", strings.NewReader(sent))
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			echo := echoed(t, string(body))
			if echo.Origin != test.host || echo.Proto != test.proto || echo.Length != int64(len(sent)) || echo.Body != sent[:echoLimit] {
				t.Errorf("echo from %s, %s, %d bytes", echo.Origin, echo.Proto, echo.Length)
			}
			seen := find(t, n, func(Request) bool { return true })
			if seen.Origin != test.host || seen.Proto != test.proto || seen.Method != "POST" ||
				seen.Target != "/v1/now?city=x" || seen.Host != response.Request.URL.Host || seen.Body != int64(len(sent)) ||
				seen.Header.Get("Content-Type") != "text/plain" {
				t.Errorf("recorded %+v", seen)
			}
			if response.TLS != nil && net.ParseIP(response.Request.URL.Host) == nil && seen.SNI != response.Request.URL.Host {
				t.Errorf("SNI %q", seen.SNI)
			}
		})
	}
}

func TestAPISeesTargetsAndHostsAsSent(t *testing.T) {
	n := newNet(t)
	conn, err := n.DialContext(t.Context(), "tcp", "web.example:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET //a/../b%2fc;d?x=%zz HTTP/1.1\r\nHost: fronted.example\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	seen := find(t, n, func(Request) bool { return true })
	if seen.Target != "//a/../b%2fc;d?x=%zz" || seen.Host != FrontedHost {
		t.Errorf("recorded %+v", seen)
	}
}

func TestAPIEndpoints(t *testing.T) {
	n := newNet(t)
	for name, set := range map[string]func(*http.Protocols){
		"h1": func(p *http.Protocols) { p.SetHTTP1(true) },
		"h2": func(p *http.Protocols) { p.SetHTTP2(true) },
	} {
		t.Run(name, func(t *testing.T) {
			client := clientWith(n, set)
			const base = "https://stream.example"
			if response, body := fetch(t, client, base+"/bytes/100000"); response.ContentLength != 100000 || len(body) != 100000 {
				t.Errorf("bytes: Content-Length %d, %d bytes", response.ContentLength, len(body))
			}
			if response, body := fetch(t, client, base+"/chunked/10"); response.ContentLength != -1 || body != "abcdefghij" {
				t.Errorf("chunked: Content-Length %d, %q", response.ContentLength, body)
			}
			if _, body := fetch(t, client, base+"/drip/3"); body != "abc" {
				t.Errorf("drip: %q", body)
			}
			if response, _ := fetch(t, client, base+"/status/418"); response.StatusCode != 418 {
				t.Errorf("status: %s", response.Status)
			}
			if response, _ := fetch(t, client, base+"/bytes/many"); response.StatusCode != 400 {
				t.Errorf("bytes/many: %s", response.Status)
			}
			if response, body := fetch(t, client, base+"/sse?n=2"); body != "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n" ||
				response.Header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("sse: %q", body)
			}
			if response, _ := fetch(t, client, base+"/trailers"); response.Trailer.Get("X-Checksum") != "sum-of-GET" || response.Trailer.Get("X-Late") != "yes" {
				t.Errorf("trailers: %v", response.Trailer)
			}
			if response, _ := fetch(t, client, base+"/redirect?to=https://api.github.example/there"); response.Request.URL.Host != GitHubHost {
				t.Errorf("redirect: ended at %s", response.Request.URL)
			}
			start := time.Now()
			if _, body := fetch(t, client, base+"/slow/60ms"); echoed(t, body).Origin != StreamHost || time.Since(start) < 60*time.Millisecond {
				t.Errorf("slow: after %s", time.Since(start))
			}
		})
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	n := newNet(t)
	response, err := n.Client().Get("https://stream.example/sse?n=100000")
	if err != nil {
		t.Fatal(err)
	}
	// The first is here long before the last was sent.
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	response.Body.Close()
	if err != nil || line != "id: 0\n" {
		t.Errorf("read %q, %v", line, err)
	}
}

func TestEarlyHints(t *testing.T) {
	n := newNet(t)
	var codes []int
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			codes = append(codes, code)
			return nil
		},
	})
	request, err := http.NewRequestWithContext(ctx, "GET", "https://stream.example/early-hints", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := n.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if !slices.Equal(codes, []int{103}) || response.StatusCode != 200 {
		t.Errorf("got %v, then %d", codes, response.StatusCode)
	}
}

func TestGRPCEchoEndsWithStatusTrailer(t *testing.T) {
	n := newNet(t)
	frame := []byte("\x00\x00\x00\x00\x05hello")
	response, err := clientWith(n, func(p *http.Protocols) { p.SetHTTP2(true) }).
		Post("https://api.weather.example/weather.Service/Now", "application/grpc", bytes.NewReader(frame))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !bytes.Equal(body, frame) {
		t.Errorf("body %q, %v", body, err)
	}
	if status := response.Trailer.Get("Grpc-Status"); status != "0" {
		t.Errorf("grpc-status %q", status)
	}
}

func TestWebSocketEcho(t *testing.T) {
	n := newNet(t)
	for _, url := range []string{"wss://api.weather.example/ws", "ws://web.example/ws"} {
		conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
			HTTPClient: clientWith(n, func(p *http.Protocols) { p.SetHTTP1(true) }), Subprotocols: []string{"echo.fakenet"}})
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		defer conn.CloseNow()
		if conn.Subprotocol() != "echo.fakenet" {
			t.Errorf("%s: subprotocol %q", url, conn.Subprotocol())
		}
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			if err := conn.Write(t.Context(), kind, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			got, message, err := conn.Read(t.Context())
			if err != nil || got != kind || string(message) != "hello" {
				t.Errorf("%s: read %v %q, %v", url, got, message, err)
			}
		}
		if err := conn.Close(websocket.StatusNormalClosure, "done"); err != nil {
			t.Errorf("%s: close: %v", url, err)
		}
	}
}

func TestBadCertificatesAreRefused(t *testing.T) {
	n := newNet(t)
	var invalid x509.CertificateInvalidError
	if _, err := n.Client().Get("https://expired.example/"); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("expired: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := n.Client().Get("https://untrusted.example/"); !errors.As(err, &unknown) {
		t.Errorf("untrusted: %v", err)
	}
	var misnamed x509.HostnameError
	if _, err := n.Client().Get("https://misnamed.example/"); !errors.As(err, &misnamed) {
		t.Errorf("misnamed: %v", err)
	}
	if seen := n.Requests(); len(seen) != 0 {
		t.Errorf("requests got through: %+v", seen)
	}
}

func TestJournalIsBoundedAndKeepsTheNewest(t *testing.T) {
	var list entries[int]
	for i := range 3 * journalSize {
		list.add(i)
	}
	got := list.snapshot()
	if len(got) > journalSize || got[len(got)-1] != 3*journalSize-1 {
		t.Errorf("%d entries, last %d", len(got), got[len(got)-1])
	}
}
