// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// journalSize is how many entries of a kind are kept; older ones are dropped, so
// that a benchmark does not fill the memory.
const journalSize = 1 << 16

// Request is one thing an origin saw: an HTTP request, a raw connection or a
// datagram. What does not apply is empty.
type Request struct {
	Time   time.Time   `json:"time"`
	Origin string      `json:"origin"`           // the host in hosts.go whose listener it reached, or "blocked", "loopback"
	Local  string      `json:"local"`            // address and port it reached
	Remote string      `json:"remote"`           // address and port it came from
	Proto  string      `json:"proto"`            // HTTP/1.1, HTTP/2.0, tcp, tls, udp, websocket
	SNI    string      `json:"sni,omitempty"`    // the TLS server name the client sent
	Method string      `json:"method,omitempty"` //
	Host   string      `json:"host,omitempty"`   // Host header or :authority
	Target string      `json:"target,omitempty"` // the request target, as received, with its query
	Header http.Header `json:"header,omitempty"`
	Body   int64       `json:"body_bytes"` // bytes of body (or of stream, or of datagram) received so far
}

// Query is one question the name server was asked.
type Query struct {
	Time    time.Time `json:"time"`
	Remote  string    `json:"remote"`
	Network string    `json:"network"` // udp or tcp
	Name    string    `json:"name"`    // as asked (case kept), without the final dot
	Type    string    `json:"type"`
	Rcode   string    `json:"rcode"` // NOERROR, NXDOMAIN, SERVFAIL; empty for no answer at all
	Answers []string  `json:"answers,omitempty"`
}

type journal struct {
	requests entries[Request]
	queries  entries[Query]
}

// entries is a bounded list whose entries may still change after they were added.
type entries[T any] struct {
	mu   sync.Mutex
	list []*T
}

func (e *entries[T]) add(v T) *T {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == journalSize {
		e.list = slices.Delete(e.list, 0, journalSize/2)
	}
	e.list = append(e.list, &v)
	return &v
}

func (e *entries[T]) update(v *T, f func(*T)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(v)
}

func (e *entries[T]) snapshot() []T {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]T, len(e.list))
	for i, v := range e.list {
		out[i] = *v
	}
	return out
}

func (e *entries[T]) reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = nil
}
