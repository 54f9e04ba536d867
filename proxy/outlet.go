// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/gobwas/ws"
)

// outlet is where frames for one end of a WebSocket go. A closing frame of the
// proxy's own comes between two frames or not at all.
type outlet struct {
	mu     sync.Mutex
	w      io.Writer
	inside bool   // a part of a frame is written
	last   []byte // the closing frame, once there is one
	shut   bool   // nothing may follow
}

// errShut: the outlet takes no more frames.
var errShut = errors.New("the WebSocket is closed")

// frameBuffer holds a frame's header and what of its payload is at hand.
const frameBuffer = 16 << 10

// pass writes a frame whose payload comes from r as it comes, by way of buf.
func (o *outlet) pass(h ws.Header, r io.Reader, buf []byte) error {
	n := putHeader(h, buf)
	for left, begun := h.Length, false; !begun || left > 0; begun = true {
		if left > 0 {
			end := int(min(int64(len(buf)), int64(n)+left))
			m, err := io.ReadAtLeast(r, buf[n:end], 1)
			if err != nil {
				return err
			}
			n, left = n+m, left-int64(m)
		}
		if err := o.write(buf[:n], left > 0); err != nil {
			return err
		}
		n = 0
	}
	return nil
}

// write writes a part of a frame. more: another one follows.
func (o *outlet) write(b []byte, more bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut || o.w == nil {
		return errShut
	}
	_, err := o.w.Write(b)
	o.inside = more || err != nil
	if err == nil && o.last != nil && !o.inside {
		o.sayLast()
	}
	return err
}

// open gives the outlet its connection.
func (o *outlet) open(w io.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.w = w
}

// end lets nothing follow what was written.
func (o *outlet) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
}

// close lets a closing frame be the last, as soon as a frame that is being
// written has ended.
func (o *outlet) close(frame []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut || o.last != nil {
		return
	}
	o.last = frame
	if !o.inside {
		o.sayLast()
	}
}

// sayLast writes the closing frame, and ends the connection in this direction
// so that it arrives whatever comes the other way.
func (o *outlet) sayLast() {
	o.shut = true
	if o.w == nil {
		return
	}
	if _, err := o.w.Write(o.last); err != nil {
		return
	}
	if half, ok := o.w.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// putHeader encodes a frame's header into a buffer that has room for one.
func putHeader(h ws.Header, buf []byte) int {
	w := sliceWriter{buf[:0]}
	_ = ws.WriteHeader(&w, h) // Lengths below 2^63, which are all there are, encode.
	return len(w.b)
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(b []byte) (int, error) {
	w.b = append(w.b, b...)
	return len(b), nil
}
