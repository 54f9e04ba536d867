// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"openshell.ai/openshell/internal/decision"
)

// wire is a socket between a client and an origin that a test plays.
type wire struct {
	t              testing.TB
	socket         *socket
	client, origin net.Conn

	mu      sync.Mutex
	decided []string
}

// newWire decides that a message is denied if it says no.
func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{t: t}
	client, near := tcpPair(t)
	far, origin := tcpPair(t)
	w.client, w.origin = client, origin
	w.socket = newSocket(far, w.decide)
	w.socket.held = newHeld()
	for _, c := range []net.Conn{client, origin} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	ended := make(chan error, 2)
	go func() { _, err := w.socket.ReadFrom(near); ended <- err }()
	go func() {
		_, err := w.socket.WriteTo(near)
		near.CloseWrite()
		ended <- err
	}()
	go func() { // as the reverse proxy does
		if err := <-ended; err == nil {
			<-ended
		}
		near.Close()
		far.Close()
	}()
	return w
}

func (w *wire) decide(message []byte, binary bool) decision.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	if bytes.Contains(message, []byte("no")) {
		return decision.Decision{Reason: "it says no"}
	}
	if !binary {
		w.decided = append(w.decided, string(message))
	}
	return decision.Decision{Outcome: decision.Allowed}
}

func frame(op ws.OpCode, fin bool, payload string) []byte {
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.NewFrame(op, fin, []byte(payload)), [4]byte{1, 2, 3, 4}))
}

func bare(op ws.OpCode, payload string) []byte {
	return ws.MustCompileFrame(ws.NewFrame(op, true, []byte(payload)))
}

// seen is what an end reads until it is closed: its messages, and the code of
// the closing frame, 0 for none.
type seen struct {
	messages []string
	binary   int // bytes
	code     ws.StatusCode
	reason   string
	broken   error // what it read is not what RFC 6455 has
}

func read(r io.Reader, state ws.State) (s seen) {
	in := bufio.NewReader(r)
	var message []byte
	text := false
	for {
		h, err := ws.ReadHeader(in)
		if err == nil {
			err = ws.CheckHeader(h, state)
			if err != nil {
				s.broken = err
				return s
			}
		}
		payload := make([]byte, 0)
		if err == nil {
			payload, err = io.ReadAll(io.LimitReader(in, h.Length))
		}
		if err != nil || int64(len(payload)) < h.Length {
			return s
		}
		if h.Masked {
			ws.Cipher(payload, h.Mask, 0)
		}
		switch {
		case h.OpCode == ws.OpClose:
			if len(payload) >= 2 {
				s.code, s.reason = ws.StatusCode(int(payload[0])<<8|int(payload[1])), string(payload[2:])
			}
			if rest, _ := io.ReadAll(in); len(rest) > 0 {
				s.broken = errors.New("there is more behind the closing frame")
			}
			return s
		case h.OpCode.IsControl():
			s.messages = append(s.messages, map[ws.OpCode]string{ws.OpPing: "ping ", ws.OpPong: "pong "}[h.OpCode]+string(payload))
		default:
			if h.OpCode != ws.OpContinuation {
				text = h.OpCode == ws.OpText
			}
			if text {
				message = append(message, payload...)
			} else {
				s.binary += len(payload)
			}
			state = state.Set(ws.StateFragmented)
			if h.Fin {
				state = state.Clear(ws.StateFragmented)
				if text {
					s.messages, message = append(s.messages, string(message)), nil
				}
			}
		}
	}
}

func join(frames ...[]byte) []byte { return slices.Concat(frames...) }

func TestSocket(t *testing.T) {
	const long = "two\xc3"
	closing := func(code ws.StatusCode, reason string) []byte {
		return frame(ws.OpClose, true, string(ws.NewCloseFrameBody(code, reason)))
	}
	big := strings.Repeat("x", maxTextMessage)
	for name, tt := range map[string]struct {
		client   []byte
		messages []string // that the origin sees
		binary   int
		code     ws.StatusCode
	}{
		"messages":        {client: join(frame(ws.OpText, true, "one"), frame(ws.OpText, true, "")), messages: []string{"one", ""}},
		"the client ends": {client: join(frame(ws.OpText, true, "one"), closing(1000, "bye"), frame(ws.OpText, true, "late")), messages: []string{"one"}, code: 1000},
		"fragments, a ping between, a character in two": {
			client:   join(frame(ws.OpText, false, long), frame(ws.OpPing, true, "p"), frame(ws.OpContinuation, false, "\xa4"), frame(ws.OpContinuation, true, "")),
			messages: []string{"ping p", "two\xc3\xa4"}},
		"binary": {client: join(frame(ws.OpBinary, false, "no"), frame(ws.OpPong, true, ""), frame(ws.OpContinuation, true, strings.Repeat("y", 100000)), frame(ws.OpText, true, "x")),
			messages: []string{"pong ", "x"}, binary: 100002},
		"as long as may be": {client: frame(ws.OpText, true, big), messages: []string{big}},
		"denied":            {client: join(frame(ws.OpText, true, "yes"), frame(ws.OpText, true, "no"), frame(ws.OpText, true, "yes")), messages: []string{"yes"}, code: 1008},
		"denied in fragments": {client: join(frame(ws.OpText, false, "n"), frame(ws.OpContinuation, true, "o"), frame(ws.OpText, true, "yes")),
			code: 1008},
		"not UTF-8":              {client: frame(ws.OpText, true, "\xff"), code: 1007},
		"half a character":       {client: join(frame(ws.OpText, false, "\xc3"), frame(ws.OpContinuation, true, "")), code: 1007},
		"too long":               {client: frame(ws.OpText, true, big+"x"), code: 1009},
		"too long in fragments":  {client: join(frame(ws.OpText, false, big), frame(ws.OpContinuation, true, "x")), code: 1009},
		"a long binary frame":    {client: []byte{0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 1, 2, 3, 4, 5}, code: 1009},
		"a length beyond reason": {client: []byte{0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, code: 1002},
		"no mask":                {client: bare(ws.OpText, "yes"), code: 1002},
		"no mask on a ping":      {client: bare(ws.OpPing, ""), code: 1002},
		"a reserved bit":         {client: join([]byte{0xc1}, frame(ws.OpText, true, "yes")[1:]), code: 1002},
		"a reserved opcode":      {client: frame(3, true, "yes"), code: 1002},
		"a reserved control":     {client: frame(11, true, ""), code: 1002},
		"a long ping":            {client: frame(ws.OpPing, true, big[:126]), code: 1002},
		"a ping in pieces":       {client: frame(ws.OpPing, false, ""), code: 1002},
		"nothing to continue":    {client: frame(ws.OpContinuation, true, "yes"), code: 1002},
		"a message in a message": {client: join(frame(ws.OpText, false, "y"), frame(ws.OpText, true, "es")), code: 1002},
		"many fragments": {client: join(frame(ws.OpText, false, ""), bytes.Repeat(frame(ws.OpContinuation, false, ""), maxFragments)),
			code: 1002},
		"half a status code":     {client: frame(ws.OpClose, true, "\x03"), code: 1002},
		"a status code for none": {client: closing(1005, ""), code: 1002},
		"a reason not in UTF-8":  {client: closing(1000, "\xff"), code: 1002},
		"a new status code":      {client: closing(1012, ""), code: 1012},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			var origin seen
			done := make(chan struct{})
			go func() { defer close(done); origin = read(w.origin, ws.StateServerSide); w.origin.Close() }()
			go func() {
				w.client.Write(tt.client)
				if tt.code == 0 {
					w.client.(*net.TCPConn).CloseWrite()
				}
			}()
			client := read(w.client, ws.StateClientSide)
			<-done
			if origin.broken != nil || client.broken != nil {
				t.Errorf("the origin read %v, the client %v", origin.broken, client.broken)
			}
			if !slices.Equal(origin.messages, tt.messages) || origin.binary != tt.binary {
				t.Errorf("the origin saw %.40q and %d bytes", origin.messages, origin.binary)
			}
			if origin.code != tt.code {
				t.Errorf("the origin was told %d (%s)", origin.code, origin.reason)
			}
			if byClient := strings.HasPrefix(name, "the client") || strings.HasPrefix(name, "a new"); client.code != tt.code && !byClient {
				t.Errorf("the client was told %d (%s)", client.code, client.reason)
			}
		})
	}
}

func TestSocketFromOrigin(t *testing.T) {
	w := newWire(t)
	large := strings.Repeat("z", 3*frameBuffer)
	go func() {
		w.origin.Write(join(bare(ws.OpText, "no"), bare(ws.OpPing, "p"), bare(ws.OpText, large)))
		w.origin.Write(bare(ws.OpClose, string(ws.NewCloseFrameBody(1001, "away"))))
		w.origin.Close()
	}()
	got := read(w.client, ws.StateClientSide)
	if !slices.Equal(got.messages, []string{"no", "ping p", large}) || got.code != 1001 || got.broken != nil {
		t.Errorf("the client saw %.40q, %d, %v", got.messages, got.code, got.broken)
	}
}

// TestSocketClosesBetweenFrames closes while the origin is in the middle of a
// frame: the closing frame must wait for the rest.
func TestSocketClosesBetweenFrames(t *testing.T) {
	w := newWire(t)
	half := bare(ws.OpText, strings.Repeat("z", 1000))
	w.origin.Write(half[:500])
	start := make([]byte, 100)
	io.ReadFull(w.client, start)
	w.client.Write(frame(ws.OpText, true, "no"))
	if got := read(w.origin, ws.StateServerSide); got.code != 1008 {
		t.Errorf("the origin was told %d", got.code)
	}
	w.origin.Write(half[500:])
	got := read(io.MultiReader(bytes.NewReader(start), w.client), ws.StateClientSide)
	if len(got.messages) != 1 || got.code != 1008 || got.reason != "it says no" {
		t.Errorf("the client saw %.20q, %d %s", got.messages, got.code, got.reason)
	}
}

// TestSocketEndsThoughNobodyReads closes a socket whose ends take nothing.
func TestSocketEndsThoughNobodyReads(t *testing.T) {
	w := newWire(t)
	chunk := bare(ws.OpBinary, strings.Repeat("z", 1<<20))
	w.origin.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for n := 0; n < 32; n++ {
		if _, err := w.origin.Write(chunk); err != nil {
			break
		}
	}
	start := time.Now()
	w.socket.close(statusServiceRestart, "changed")
	w.client.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, w.client); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error("it is still open")
	}
	if took := time.Since(start); took > 5*closeWait { // and some for a slow machine
		t.Errorf("it took %v", took)
	}
}

func TestSocketMemoryIsBounded(t *testing.T) {
	w := newWire(t)
	w.socket.held.TryAcquire(maxHeld - 10)
	w.client.Write(join(frame(ws.OpText, true, "small"), frame(ws.OpText, true, "more than that")))
	if got := read(w.client, ws.StateClientSide); got.code != statusTryAgainLater {
		t.Errorf("the client was told %d", got.code)
	}
	w.client.Close()
	got := read(w.origin, ws.StateServerSide)
	if len(got.messages) != 1 || got.code != statusTryAgainLater {
		t.Errorf("the origin saw %v, %d", got.messages, got.code)
	}
	if !w.socket.held.TryAcquire(10) {
		t.Error("the memory was not given back")
	}
}

func TestShorten(t *testing.T) {
	for _, reason := range []string{"", "short", strings.Repeat("ä", 100), strings.Repeat("x", 123)} {
		got := shorten(reason)
		if len(got) > 123 || !strings.HasPrefix(reason, got) || !utf8.ValidString(got) || len(reason) <= 123 && got != reason {
			t.Errorf("%q became %q", reason, got)
		}
	}
}

// FuzzWebSocketFrames says anything at all on a WebSocket. What the origin
// reads must be well formed, and its text what was decided.
func FuzzWebSocketFrames(f *testing.F) {
	f.Add(join(frame(ws.OpText, true, "one"), frame(ws.OpText, false, "n"), frame(ws.OpPing, true, ""), frame(ws.OpContinuation, true, "o")))
	f.Add(join(frame(ws.OpBinary, false, "no"), frame(ws.OpContinuation, true, "x"), frame(ws.OpClose, true, "\x03\xe8")))
	f.Add(join(bare(ws.OpText, "yes"), frame(ws.OpText, true, "\xff")))
	f.Add([]byte{0x81, 0xfe, 0, 3, 1, 2, 3, 4, 'y' ^ 1, 'e' ^ 2, 's' ^ 3})
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWire(t)
		defer w.client.Close()
		defer w.origin.Close()
		origin := make(chan seen, 1)
		go func() { origin <- read(w.origin, ws.StateServerSide); w.origin.Close() }()
		w.client.Write(text)
		w.client.(*net.TCPConn).CloseWrite()
		client := read(w.client, ws.StateClientSide)
		got := <-origin
		if got.broken != nil || client.broken != nil {
			t.Fatalf("%q made the origin read %v, the client %v", text, got.broken, client.broken)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		var said []string
		for _, m := range got.messages {
			if !strings.HasPrefix(m, "ping ") && !strings.HasPrefix(m, "pong ") {
				said = append(said, m)
			}
		}
		allowed := slices.DeleteFunc(slices.Clone(w.decided), func(m string) bool {
			return strings.HasPrefix(m, "ping ") || strings.HasPrefix(m, "pong ")
		})
		// The last one may have been cut off.
		if len(said) > len(allowed) || !slices.Equal(said, allowed[:len(said)]) {
			t.Errorf("%q made the origin see %q; allowed: %q", text, said, allowed)
		}
	})
}
