// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// bodyWait is how long a client may take to send a body that has to be seen
	// before it is decided, memory for it included.
	bodyWait = 30 * time.Second
	// maxHeld is how many bytes of bodies and messages one sandbox's proxy holds
	// at a time, whatever the number of connections and streams.
	maxHeld = 64 << 20
)

// held bounds the memory of what is read before it is decided.
type held struct{ *semaphore.Weighted }

func newHeld() held { return held{semaphore.NewWeighted(maxHeld)} }

// take waits for memory. give returns it.
func (h held) take(ctx context.Context, n int64) bool {
	ctx, cancel := context.WithTimeout(ctx, bodyWait)
	defer cancel()
	return h.Acquire(ctx, n) == nil
}

// readBody reads the whole body of a request, which may have limit bytes and
// wait to arrive, and makes it the body that is sent on. free gives its memory
// back.
func (h *httpFlow) readBody(w http.ResponseWriter, r *http.Request, limit int, wait time.Duration) (body []byte,
	free func(), refused *refusal) {
	if refused := unreadable(r); refused != nil {
		return nil, nil, refused
	}
	limit = min(limit, maxHeld/2)
	if r.ContentLength > int64(limit) {
		return nil, nil, refusedLength(limit)
	}
	// What the client announces is what it gets, and not what it may have.
	reserved := int64(limit)
	if r.ContentLength >= 0 {
		reserved = r.ContentLength
	}
	if !h.p.held.take(r.Context(), reserved) {
		return nil, nil, refusedBusy()
	}
	body, refused = receive(w, r, limit, wait)
	if refused != nil {
		h.p.held.Release(reserved)
		return nil, nil, refused
	}
	h.p.held.Release(reserved - int64(len(body)))
	resend(r, body)
	return body, func() { h.p.held.Release(int64(len(body))) }, nil
}

// unreadable refuses a body that whoever decides and the origin could read in
// different ways.
func unreadable(r *http.Request) *refusal {
	for _, value := range r.Header["Content-Encoding"] {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return refusedBody(http.StatusUnsupportedMediaType, "unsupported_content_encoding",
					"the endpoint decides on bodies and takes none with a Content-Encoding")
			}
		}
	}
	if len(r.Header["Content-Type"]) > 1 {
		return refusedBody(http.StatusBadRequest, "invalid_request_body", "the request has more than one Content-Type")
	}
	return nil
}

// receive reads a body to its end.
func receive(w http.ResponseWriter, r *http.Request, limit int, wait time.Duration) ([]byte, *refusal) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(wait))
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := b.ReadFrom(io.LimitReader(r.Body, int64(limit)+1))
	_ = control.SetReadDeadline(time.Time{})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refusedBody(http.StatusRequestTimeout, "request_timeout", "the body did not arrive in time")
	case err != nil:
		return nil, refusedBody(http.StatusBadRequest, "invalid_request_body",
			fmt.Sprintf("the body cannot be read: %v", err))
	case b.Len() > limit:
		return nil, refusedLength(limit)
	}
	if b.Len() == 0 {
		return []byte{}, nil // nil would say that it was not seen
	}
	return b.Bytes(), nil
}

// resend makes a request carry the bytes that were read, and say how many they
// are. Only a chunked body can have trailers (RFC 9112 section 7.1.2).
func resend(r *http.Request, body []byte) {
	r.Header.Del("Expect") // it is here already
	r.Body, r.ContentLength, r.TransferEncoding = http.NoBody, int64(len(body)), nil
	if len(body) > 0 || len(r.Trailer) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if len(r.Trailer) > 0 {
		r.ContentLength = -1
	}
}
