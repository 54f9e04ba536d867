// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"openshell.ai/openshell/internal/decision"
)

// Limits of a WebSocket whose messages are decided, which are OpenShell's.
const (
	maxTextMessage = 4 << 20
	maxBinaryFrame = 16 << 20
	maxFragments   = 4096 // of a message

	messageIdle = 30 * time.Second  // between two bytes of a text message
	messageTime = 120 * time.Second // for a whole one
	// closeWait is how long the ends of a WebSocket have to agree that it is over.
	closeWait = 2 * time.Second
)

// Status codes of closing frames (RFC 6455 section 7.4.1, and IANA's registry).
const (
	statusServiceRestart ws.StatusCode = 1012 // the policy has changed
	statusTryAgainLater  ws.StatusCode = 1013 // too much is held already
)

// socket relays a WebSocket (RFC 6455) without extensions. What the client
// sends is parsed: each text message is held until it is decided, and then sent
// on in one frame; other frames pass as they come. What the origin sends is
// parsed only as far as to know where frames end.
//
// It stands in for the origin's connection in the reverse proxy, whose copies
// find ReadFrom and WriteTo.
type socket struct {
	origin   io.ReadWriteCloser
	decide   func(message []byte, binary bool) decision.Decision
	held     held
	toOrigin frameWriter
	toClient frameWriter
	stopped  atomic.Bool // the proxy has closed it

	mu     sync.Mutex // guards client
	client net.Conn   // nil at first

	// These are the reading goroutine's.
	in        *bufio.Reader
	buf       []byte
	message   []byte    // the text message that has begun
	taken     int64     // of held, for it
	began     time.Time // zero between messages
	fragments int       // of the message that has begun; 0: none has
	text      bool      // it is text
}

func newSocket(origin io.ReadWriteCloser, decide func([]byte, bool) decision.Decision) *socket {
	s := &socket{origin: origin, decide: decide}
	s.toOrigin.w = origin
	return s
}

// attach learns of the client's connection, from either copy.
func (s *socket) attach(client any) error {
	conn, ok := client.(net.Conn)
	if !ok {
		return errors.New("a WebSocket's client has to be a connection")
	}
	s.mu.Lock()
	s.client = conn
	s.mu.Unlock()
	s.toClient.open(conn)
	return nil
}

var errUnparsed = errors.New("a decided WebSocket is read by frames only")

// Read and Write refuse: bytes that nobody parses must not pass.
func (s *socket) Read([]byte) (int, error)  { return 0, errUnparsed }
func (s *socket) Write([]byte) (int, error) { return 0, errUnparsed }

// Close closes the origin's connection.
func (s *socket) Close() error { return s.origin.Close() }

// WriteTo carries the origin's frames to the client until either ends.
func (s *socket) WriteTo(client io.Writer) (int64, error) {
	if err := s.attach(client); err != nil {
		return 0, err
	}
	in := bufio.NewReaderSize(s.origin, 4096)
	buf := make([]byte, frameBuffer)
	for {
		h, err := ws.ReadHeader(in)
		if err == nil {
			err = s.toClient.pass(h, io.LimitReader(in, h.Length), buf)
		}
		if err == nil && h.OpCode == ws.OpClose {
			s.toClient.end() // nobody may add to that
		}
		if err != nil {
			if errors.Is(err, errClosed) { // let the origin say what it has to
				_, _ = io.Copy(io.Discard, in)
			}
			// The client has its last bytes, and a moment to end its side.
			time.AfterFunc(closeWait, s.cut)
			return 0, nil
		}
	}
}

// ReadFrom carries the client's frames to the origin until either ends.
func (s *socket) ReadFrom(client io.Reader) (int64, error) {
	if err := s.attach(client); err != nil {
		return 0, err
	}
	s.in = bufio.NewReaderSize(&paced{s: s, conn: client.(net.Conn)}, 4096)
	s.buf = make([]byte, frameBuffer)
	defer s.forget()
	for {
		code, err := s.step()
		if code != 0 {
			s.close(code, err.Error())
		}
		if s.stopped.Load() || errors.Is(err, errClosed) {
			s.began = time.Time{}
			_, _ = io.Copy(io.Discard, s.in) // until the client has ended, or is cut
			return 0, errClosed
		}
		if err != nil {
			return 0, err
		}
	}
}

// close ends the WebSocket with a status code and a reason at both ends.
func (s *socket) close(code ws.StatusCode, reason string) {
	if s.stopped.Swap(true) {
		return
	}
	time.AfterFunc(closeWait, s.cut)
	frame := ws.NewCloseFrame(ws.NewCloseFrameBody(code, shorten(reason)))
	s.toClient.close(ws.MustCompileFrame(frame))
	s.toOrigin.close(ws.MustCompileFrame(ws.MaskFrame(frame)))
}

// shorten makes a reason fit into a control frame, behind its code.
func shorten(reason string) string {
	const room = ws.MaxControlFramePayloadSize - 2
	if len(reason) <= room {
		return reason
	}
	n := room
	for !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}

// cut ends both connections.
func (s *socket) cut() {
	s.origin.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
	}
}

// paced reads from the client, in time.
type paced struct {
	s    *socket
	conn net.Conn
}

func (p *paced) Read(b []byte) (int, error) {
	var deadline time.Time
	if began := p.s.began; !began.IsZero() {
		deadline = time.Now().Add(messageIdle)
		if last := began.Add(messageTime); last.Before(deadline) {
			deadline = last
		}
	}
	_ = p.conn.SetReadDeadline(deadline)
	return p.conn.Read(b)
}

// step carries one frame of the client. Where it returns a code, the WebSocket
// is to be closed with it, for the reason that err gives.
func (s *socket) step() (ws.StatusCode, error) {
	if _, err := s.in.Peek(1); err != nil {
		return s.late(err)
	}
	if s.began.IsZero() {
		s.began = time.Now()
	}
	h, err := ws.ReadHeader(s.in)
	if errors.Is(err, ws.ErrHeaderLengthMSB) {
		return ws.StatusProtocolError, err
	}
	if err != nil {
		return s.late(err)
	}
	state := ws.StateServerSide
	if s.fragments > 0 {
		state = state.Set(ws.StateFragmented)
	}
	if err := ws.CheckHeader(h, state); err != nil {
		return ws.StatusProtocolError, err
	}
	if h.OpCode.IsControl() {
		code, err := s.control(h)
		if len(s.message) == 0 {
			s.began = time.Time{}
		}
		return code, err
	}
	if s.fragments == 0 {
		s.text = h.OpCode == ws.OpText
	}
	if s.fragments++; s.fragments > maxFragments {
		return ws.StatusProtocolError, fmt.Errorf("a message of more than %d fragments", maxFragments)
	}
	carry := s.binary
	if s.text {
		carry = s.assemble
	}
	if code, err := carry(h); code != 0 || err != nil {
		return code, err
	}
	if h.Fin {
		s.fragments, s.began = 0, time.Time{}
	}
	return 0, nil
}

// late closes a WebSocket whose client takes too long over a message.
func (s *socket) late(err error) (ws.StatusCode, error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ws.StatusPolicyViolation, errors.New("the message did not arrive in time")
	}
	return 0, err
}

// control passes a control frame on once it is here.
func (s *socket) control(h ws.Header) (ws.StatusCode, error) {
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(s.in, payload); err != nil {
		return s.late(err)
	}
	ws.Cipher(payload, h.Mask, 0)
	frame := ws.MaskFrame(ws.NewFrame(h.OpCode, true, payload))
	if h.OpCode != ws.OpClose {
		return 0, s.toOrigin.write(ws.MustCompileFrame(frame), false)
	}
	if len(payload) == 1 {
		return ws.StatusProtocolError, errors.New("a closing frame with half a status code")
	}
	if len(payload) > 0 {
		code := ws.StatusCode(uint16(payload[0])<<8 | uint16(payload[1]))
		if err := checkClose(code, string(payload[2:])); err != nil {
			return ws.StatusProtocolError, err
		}
	}
	s.toOrigin.close(ws.MustCompileFrame(frame))
	return 0, errClosed
}

// checkClose is ws.CheckCloseFrameData, for a registry that has grown: 1012 to
// 1014 are defined too.
func checkClose(code ws.StatusCode, reason string) error {
	if code >= 1012 && code <= 1014 {
		code = ws.StatusNormalClosure
	}
	return ws.CheckCloseFrameData(code, reason)
}

// binary passes on a frame of a binary message, as it comes.
func (s *socket) binary(h ws.Header) (ws.StatusCode, error) {
	if h.Length > maxBinaryFrame {
		return ws.StatusMessageTooBig, fmt.Errorf("a frame of more than %d bytes", maxBinaryFrame)
	}
	if h.OpCode == ws.OpBinary {
		if d := s.decide(nil, true); d.Outcome == decision.Denied {
			return ws.StatusPolicyViolation, errors.New(d.Reason)
		}
	}
	s.began = time.Time{} // nothing is held: it may take its time
	return 0, s.toOrigin.pass(h, io.LimitReader(s.in, h.Length), s.buf)
}

// assemble adds a frame to a text message and, where that is complete, decides
// it.
func (s *socket) assemble(h ws.Header) (ws.StatusCode, error) {
	if h.Length > maxTextMessage-int64(len(s.message)) {
		return ws.StatusMessageTooBig, fmt.Errorf("a text message of more than %d bytes", maxTextMessage)
	}
	if !s.held.TryAcquire(h.Length) {
		return statusTryAgainLater, errors.New("too many messages are being decided on")
	}
	s.taken += h.Length
	begin := len(s.message)
	s.message = append(s.message, make([]byte, h.Length)...)
	if _, err := io.ReadFull(s.in, s.message[begin:]); err != nil {
		return s.late(err)
	}
	ws.Cipher(s.message[begin:], h.Mask, 0)
	if !h.Fin {
		return 0, nil
	}
	defer s.forget()
	if !utf8.Valid(s.message) {
		return ws.StatusInvalidFramePayloadData, errors.New("a text message that is not UTF-8")
	}
	if s.stopped.Load() {
		return 0, errClosed
	}
	if d := s.decide(s.message, false); d.Outcome == decision.Denied {
		return ws.StatusPolicyViolation, errors.New(d.Reason)
	}
	mask := ws.NewMask()
	ws.Cipher(s.message, mask, 0)
	h = ws.Header{Fin: true, OpCode: ws.OpText, Masked: true, Mask: mask, Length: int64(len(s.message))}
	return 0, s.toOrigin.pass(h, &sliceReader{s.message}, s.buf)
}

// forget gives up the message that was held.
func (s *socket) forget() {
	s.held.Release(s.taken)
	s.taken = 0
	if cap(s.message) > frameBuffer {
		s.message = nil
	}
	s.message = s.message[:0]
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(b []byte) (int, error) {
	n := copy(b, r.b)
	r.b = r.b[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
