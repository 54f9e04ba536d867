// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// echoLimit is how much of a request's body is given back, in bytes.
const echoLimit = 64 << 10

// Echo is what the HTTP API answers, as JSON: what it saw of the request.
type Echo struct {
	Origin string      `json:"origin"`
	Proto  string      `json:"proto"`
	Method string      `json:"method"`
	Host   string      `json:"host"`
	Target string      `json:"target"`
	Header http.Header `json:"header"`
	Body   string      `json:"body"` // the first 64 KiB
	Length int64       `json:"length"`
}

// startAPIs serves the HTTP API on its hosts. FrontedHost shares WeatherHost's
// addresses, so its listeners are WeatherHost's.
func (n *Net) startAPIs() error {
	for _, site := range []struct {
		host  string
		names []string
		ports []uint16
	}{
		{WeatherHost, []string{FrontedHost, CNAMEHost, IPv4OnlyHost, IPv6OnlyHost, RebindHost, MixedHost}, []uint16{80}},
		{GitHubHost, nil, []uint16{80}},
		{StreamHost, nil, []uint16{80}},
		{CDNHost, []string{"*." + CDNHost}, []uint16{80}},
		{WebHost, nil, []uint16{80, 8080}},
	} {
		handler := api{origin: site.host}
		for _, port := range site.ports {
			if err := n.plainHTTP(site.host, port, handler); err != nil {
				return err
			}
		}
		if site.host == WebHost {
			continue
		}
		if err := n.https(site.host, handler, site.names...); err != nil {
			return err
		}
	}
	return nil
}

// api answers any path with an [Echo], but for these first segments:
//
//	/status/N         status N, with an Echo
//	/redirect?to=URL  302
//	/bytes/N          N bytes, with a Content-Length
//	/chunked/N        N bytes, without
//	/slow/DURATION    an Echo after so long
//	/drip/N           N bytes, one each 10 ms
//	/sse?n=N          N server-sent events (default 3), one each 10 ms
//	/early-hints      103, then 200
//	/trailers         a body, then trailers
//	/ws               WebSocket echo
//	/odd/NAME         one of oddAnswers
//	/upgrade/ANY      any other upgrade, and an echo of what follows
//
// and gRPC requests (by Content-Type), whose messages are echoed.
//
// It routes by hand: http.ServeMux would redirect paths that are not clean,
// which must be seen as they came.
type api struct {
	origin string
}

var endpoints = map[string]http.HandlerFunc{
	"bytes":       serveBytes,
	"chunked":     serveChunked,
	"drip":        serveDrip,
	"early-hints": serveEarlyHints,
	"odd":         serveOdd,
	"redirect":    serveRedirect,
	"sse":         serveEvents,
	"trailers":    serveTrailers,
	"upgrade":     serveUpgrade,
	"ws":          serveWebSocket,
}

func (a api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		serveGRPC(w, r)
		return
	}
	first, rest := splitPath(r)
	switch endpoint, ok := endpoints[first]; {
	case ok:
		endpoint(w, r)
	case first == "status":
		code, err := strconv.Atoi(rest)
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "want /status/N with N from 200 to 599", http.StatusBadRequest)
			return
		}
		a.echo(w, r, code)
	case first == "slow":
		if wait(w, r, rest) {
			a.echo(w, r, http.StatusOK)
		}
	default:
		a.echo(w, r, http.StatusOK)
	}
}

func (a api) echo(w http.ResponseWriter, r *http.Request, code int) {
	body, err := io.ReadAll(io.LimitReader(r.Body, echoLimit))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	more, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if code == http.StatusNoContent || code == http.StatusNotModified {
		return
	}
	json.NewEncoder(w).Encode(Echo{
		Origin: a.origin, Proto: r.Proto, Method: r.Method, Host: r.Host, Target: r.RequestURI,
		Header: r.Header, Body: string(body), Length: int64(len(body)) + more,
	})
}

func serveRedirect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", r.URL.Query().Get("to"))
	w.WriteHeader(http.StatusFound)
}

// splitPath returns the first segment of the request's path and what follows.
func splitPath(r *http.Request) (first, rest string) {
	first, rest, _ = strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return first, rest
}
