// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
)

// spelling is how one message of HTTP/1 writes the names of its header fields, by net/http's own way to write them.
// It has only those that differ. net/http loses it, and sorts the fields; names are the same in any case (RFC 9110
// section 5.1), but not to everybody.
type spelling map[string]string

// spellingOf reads the field lines of a message's head. What else is there does no harm: a name is only ever put in
// the place of the same one.
func spellingOf(head []byte) (s spelling) {
	for line := range bytes.Lines(head) {
		name, _, ok := bytes.Cut(line, []byte{':'})
		if !ok || isCanonical(name) {
			continue
		}
		written := string(name)
		canonical := textproto.CanonicalMIMEHeaderKey(written)
		if canonical == written || !strings.EqualFold(canonical, written) || s[canonical] != "" {
			continue
		}
		if s == nil {
			s = make(spelling)
		}
		s[canonical] = written
	}
	return s
}

// isCanonical reports whether a name is written as net/http would write it.
func isCanonical(name []byte) bool {
	upper := true
	for _, b := range name {
		if upper && b >= 'a' && b <= 'z' || !upper && b >= 'A' && b <= 'Z' {
			return false
		}
		upper = b == '-'
	}
	return true
}

// framing are the fields by which net/http finds out what it has to do itself, in its own way to write them.
var framing = []string{"Connection", "Content-Length", "Content-Type", "Date", "Expect", "Host", "Te", "Trailer",
	"Transfer-Encoding", "Upgrade"}

// apply writes the names as the message did.
func (s spelling) apply(h http.Header) {
	for canonical, written := range s {
		values, ok := h[canonical]
		if !ok || slices.Contains(framing, canonical) {
			continue
		}
		delete(h, canonical)
		h[written] = values
		if canonical == "User-Agent" {
			h[canonical] = nil // or else net/http adds its own
		}
	}
}

// answers is what an httpFlow knows of the heads that origins answer with.
type answers struct {
	asked    atomic.Int64 // requests so far, of which one at a time is answered
	spelling atomic.Pointer[spelling]
}

// answerConn is a connection to an origin over HTTP/1. It reads the head of each answer before net/http does: to know
// how names are written, and to put right what clients take as it comes and net/http refuses.
type answerConn struct {
	net.Conn
	of       *answers
	answered int64  // of of.asked
	head     []byte // of the answer that has begun
	ready    []byte // to be returned
}

// Read implements net.Conn.
func (c *answerConn) Read(b []byte) (int, error) {
	for len(c.ready) == 0 {
		n, err := c.Conn.Read(b)
		if n == 0 && len(c.head) == 0 || c.answered == c.of.asked.Load() {
			return n, err
		}
		if len(c.head) == 0 && c.final(b[:n]) {
			return n, err // as nearly always
		}
		c.head = append(c.head, b[:n]...)
		c.take(err != nil || len(c.head) > maxResponseHeader)
	}
	n := copy(b, c.ready)
	if c.ready = c.ready[n:]; len(c.ready) == 0 {
		c.ready = nil // it would be kept for as long as the connection
	}
	return n, nil
}

// final takes in what begins with the whole head of a final answer that needs no mending.
func (c *answerConn) final(b []byte) bool {
	end := endOfHead(b)
	if end < 0 || isInformational(b) {
		return false
	}
	if _, mended := mendHead(b[:end]); mended {
		return false
	}
	c.finish(b[:end])
	return true
}

// take makes what was read ready, head by head up to the final one. all: there is no more, and net/http is to say so.
func (c *answerConn) take(all bool) {
	for {
		end := endOfHead(c.head)
		if end < 0 && !all {
			return
		}
		if end < 0 {
			end = len(c.head)
		}
		head, _ := mendHead(c.head[:end])
		c.ready, c.head = append(c.ready, head...), c.head[end:]
		if !isInformational(head) || len(c.head) == 0 && all {
			c.finish(head)
			c.ready, c.head = append(c.ready, c.head...), nil
			return
		}
	}
}

// finish notes that an answer's head is here, and how it writes names.
func (c *answerConn) finish(head []byte) {
	names := spellingOf(head)
	c.of.spelling.Store(&names)
	c.answered = c.of.asked.Load()
}

// isInformational reports whether another head follows one (RFC 9110 section 15.2), which none does where the origin
// leaves HTTP.
func isInformational(head []byte) bool {
	_, status, _ := bytes.Cut(head, []byte{' '})
	return bytes.HasPrefix(status, []byte("1")) && !bytes.HasPrefix(status, []byte("101"))
}

// CloseWrite is for a connection that has left HTTP.
func (c *answerConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// endOfHead is where an answer's head ends, or -1.
func endOfHead(b []byte) int {
	end := -1
	for _, blank := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(b, []byte(blank)); i >= 0 && (end < 0 || i+len(blank) < end) {
			end = i + len(blank)
		}
	}
	return end
}

// mendHead makes an answer's head one that net/http reads, where it can be read in one way: the status line of ICY
// servers, and a Content-Length that says the same more than once (RFC 9110 section 8.6).
func mendHead(head []byte) (mended []byte, changed bool) {
	if rest, ok := bytes.CutPrefix(head, []byte("ICY ")); ok {
		head, changed = append([]byte("HTTP/1.0 "), rest...), true
	}
	for line := range bytes.Lines(head) {
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok || len(name) != len("Content-Length") || !bytes.EqualFold(name, []byte("Content-Length")) {
			continue
		}
		first, more, ok := bytes.Cut(value, []byte{','})
		if first = bytes.TrimSpace(first); !ok || len(first) == 0 {
			continue
		}
		for length := range bytes.SplitSeq(more, []byte{','}) {
			if !bytes.Equal(bytes.TrimSpace(length), first) {
				return head, changed // which net/http refuses
			}
		}
		one := slices.Concat(name, []byte(": "), first, []byte("\r\n"))
		return bytes.Replace(head, line, one, 1), true
	}
	return head, changed
}

// spelled writes an answer's names as the origin did.
type spelled struct {
	http.ResponseWriter
	of *answers
}

// WriteHeader implements http.ResponseWriter.
func (s spelled) WriteHeader(status int) {
	if names := s.of.spelling.Load(); names != nil && status >= http.StatusOK {
		names.apply(s.Header())
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (s spelled) Unwrap() http.ResponseWriter { return s.ResponseWriter }
