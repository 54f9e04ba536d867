// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/gobwas/httphead"
	"golang.org/x/net/http/httpguts"

	"openshell.ai/openshell/internal/decision"
)

// websocketGUID is what RFC 6455 section 1.3 has a server append to the key.
const websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// checkWebSocket checks an origin's 101 as a client has to (RFC 6455 section 4.1).
func checkWebSocket(asked *http.Request, resp *http.Response) error {
	sum := sha1.Sum([]byte(asked.Header.Get("Sec-WebSocket-Key") + websocketGUID))
	if asked.Header.Get("Upgrade") == "" ||
		resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) {
		return errUnasked
	}
	const protocol, extensions = "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"
	chosen := resp.Header.Values(protocol)
	if len(chosen) > 1 || len(chosen) == 1 &&
		!httpguts.HeaderValuesContainsToken(asked.Header.Values(protocol), chosen[0]) {
		return fmt.Errorf("the origin chose the subprotocol %q, which was not offered", chosen)
	}
	offered, ok := tokens(asked.Header.Values(extensions))
	given, wellFormed := tokens(resp.Header.Values(extensions))
	if !ok || !wellFormed {
		return errors.New("malformed Sec-WebSocket-Extensions")
	}
	for _, name := range given {
		if !slices.Contains(offered, name) {
			return fmt.Errorf("the origin chose the extension %q, which was not offered", name)
		}
	}
	return nil
}

// tokens returns the names in a list of extensions (RFC 6455 section 9.1).
func tokens(values []string) (names []string, ok bool) {
	for _, value := range values {
		options, ok := httphead.ParseOptions([]byte(value), nil)
		if !ok {
			return nil, false
		}
		for _, o := range options {
			names = append(names, string(o.Name))
		}
	}
	return names, true
}

// offerPlainText takes the extensions out of a handshake, so that messages can
// be read: every extension that is registered changes what frames carry.
func offerPlainText(h http.Header) { h.Del("Sec-WebSocket-Extensions") }

// read puts the exchange's WebSocket between the two ends of a connection that
// has been switched.
func (x *exchange) read(origin io.ReadWriteCloser) io.ReadWriteCloser {
	s := newSocket(origin, x.decideText)
	s.held = x.flow.p.held
	x.flow.exchanges.setDecidedSocket(s)
	return s
}

// methodText is the method by which policies name a client's text messages.
const methodText = "WEBSOCKET_TEXT"

// decideText decides a message under the policy of its own moment and records
// that, except that of those that the policy allows one stands for all. A binary
// message is decided as a text that says nothing: servers take the one for the
// other, and what has to be read to be allowed is not allowed.
func (x *exchange) decideText(message []byte, binary bool) decision.Decision {
	d := x.flow.decideNow().Message(x.request, message)
	if binary && d.Malformed {
		d.Reason = "a binary message cannot be decided"
	}
	if d.Outcome == decision.Allowed {
		if x.textAllowed {
			return d
		}
		x.textAllowed = true
	}
	rec := recordOf(Message, d)
	rec.Method, rec.Scheme, rec.Path = methodText, x.flow.scheme, x.request.Path
	x.flow.record(rec)
	return d
}
