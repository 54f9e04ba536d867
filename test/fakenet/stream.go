// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const dripInterval = 10 * time.Millisecond

// pattern is an endless body: the alphabet over and over.
type pattern struct{ at int }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a' + byte(p.at%26)
		p.at++
	}
	return len(b), nil
}

// size reads N of /bytes/N; it answers 400 itself.
func size(w http.ResponseWriter, r *http.Request) (int64, bool) {
	first, rest := splitPath(r)
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil || n < 0 {
		http.Error(w, fmt.Sprintf("want /%s/N", first), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if r.Method != http.MethodHead {
		io.CopyN(w, new(pattern), n)
	}
}

func serveChunked(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.WriteHeader(http.StatusOK)
	// Flushed before the body, or a short one would get a Content-Length.
	http.NewResponseController(w).Flush()
	io.CopyN(w, new(pattern), n)
}

func serveDrip(w http.ResponseWriter, r *http.Request) {
	n, ok := size(w, r)
	if !ok {
		return
	}
	body, flush := new(pattern), http.NewResponseController(w)
	for range n {
		if _, err := io.CopyN(w, body, 1); err != nil || flush.Flush() != nil || !pause(r, dripInterval) {
			return
		}
	}
}

// serveEvents sends server-sent events (HTML standard, section 9.2).
func serveEvents(w http.ResponseWriter, r *http.Request) {
	n := 3
	if text := r.URL.Query().Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			http.Error(w, "want n=N", http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	for i := range n {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", i, i); err != nil || flush.Flush() != nil || !pause(r, dripInterval) {
			return
		}
	}
}

func serveEarlyHints(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload; as=style")
	w.WriteHeader(http.StatusEarlyHints)
	w.WriteHeader(http.StatusOK)
	io.WriteString(w, "hinted\n")
}

func serveTrailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Checksum")
	w.WriteHeader(http.StatusOK)
	io.WriteString(w, "body with trailers\n")
	http.NewResponseController(w).Flush()
	w.Header().Set("X-Checksum", "sum-of-"+r.Method)
	// Not announced beforehand: allowed by RFC 9110, section 6.5.
	w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
}

// serveGRPC gives back the messages of a call and ends with grpc-status 0, as
// the gRPC protocol over HTTP/2 wants: in a trailer.
func serveGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	flush.Flush()
	status, message := "0", ""
	if err := copyFlushed(w, r.Body, flush); err != nil {
		status, message = "13", err.Error()
	}
	w.Header().Set("Grpc-Status", status)
	w.Header().Set("Grpc-Message", message)
}

// copyFlushed passes on each read at once, so that both sides can stream.
func copyFlushed(w io.Writer, r io.Reader, flush *http.ResponseController) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			if err := flush.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// wait sleeps for /slow/DURATION; it answers 400 itself, and false means that
// there is nothing more to answer.
func wait(w http.ResponseWriter, r *http.Request, text string) bool {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		http.Error(w, "want /slow/DURATION, such as /slow/2s", http.StatusBadRequest)
		return false
	}
	return pause(r, d)
}

// pause sleeps, and reports false when the client went away meanwhile.
func pause(r *http.Request, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
