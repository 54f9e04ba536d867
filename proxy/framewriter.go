// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/gobwas/ws"
)

// frameWriter writes the frames for one end of a WebSocket. A closing frame of the proxy's own comes between
// two frames or not at all.
type frameWriter struct {
	mu       sync.Mutex // guards what follows
	w        io.Writer
	midFrame bool   // a part of a frame is written
	last     []byte // the closing frame, once there is one
	closed   bool   // nothing may follow
}

// errClosed: the writer takes no more frames.
var errClosed = errors.New("the WebSocket is closed")

// frameBuffer holds a frame's header and what of its payload is at hand.
const frameBuffer = 16 << 10

// pass writes a frame whose payload comes from r as it comes, by way of buf.
func (f *frameWriter) pass(h ws.Header, r io.Reader, buf []byte) error {
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
		if err := f.write(buf[:n], left > 0); err != nil {
			return err
		}
		n = 0
	}
	return nil
}

// write writes a part of a frame. more: another one follows.
func (f *frameWriter) write(b []byte, more bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.w == nil {
		return errClosed
	}
	_, err := f.w.Write(b)
	f.midFrame = more || err != nil
	if err == nil && f.last != nil && !f.midFrame {
		f.writeClose()
	}
	return err
}

// open gives the writer its connection.
func (f *frameWriter) open(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.w = w
}

// end lets nothing follow what was written.
func (f *frameWriter) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}

// close lets a closing frame be the last, as soon as a frame that is being
// written has ended.
func (f *frameWriter) close(frame []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.last != nil {
		return
	}
	f.last = frame
	if !f.midFrame {
		f.writeClose()
	}
}

// writeClose writes the closing frame, and ends the connection in this direction
// so that it arrives whatever comes the other way.
func (f *frameWriter) writeClose() {
	f.closed = true
	if f.w == nil {
		return
	}
	if _, err := f.w.Write(f.last); err != nil {
		return
	}
	if half, ok := f.w.(interface{ CloseWrite() error }); ok {
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
