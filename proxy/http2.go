// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"

	"openshell.ai/openshell/internal/decision"
)

// http2Conn is a client's connection as the HTTP/2 server has it, in clear. It
// notices, in the frames that the server sends, the requests that were refused
// before any handler saw them.
type http2Conn struct {
	net.Conn
	flow *httpFlow
	seen []byte // of the frame that has begun, as far as it is looked at
	skip int    // what is left of it behind that

	malformed int // requests recorded
}

const (
	frameHeader  = 9 // RFC 9113 section 4.1
	frameStart   = 8 // as much of a payload as GOAWAY's error code takes
	maxMalformed = 16
	// status400 is ":status: 400" in HPACK, whose static table has it (RFC 7541
	// appendix A).
	status400 = 0x80 | 12
)

// Write implements net.Conn.
func (c *http2Conn) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(c.skip, len(rest))
		c.skip, rest = c.skip-n, rest[n:]
		if n = min(c.wanted()-len(c.seen), len(rest)); n > 0 {
			c.seen, rest = append(c.seen, rest[:n]...), rest[n:]
		}
		if len(c.seen) >= frameHeader && len(c.seen) == c.wanted() {
			c.look()
			c.skip = c.length() - (len(c.seen) - frameHeader)
			c.seen = c.seen[:0]
		}
	}
	return c.Conn.Write(b)
}

// length is that of the payload of the frame whose header was seen.
func (c *http2Conn) length() int { return int(binary.BigEndian.Uint32(c.seen) >> 8) }

// wanted is how much of the frame is looked at.
func (c *http2Conn) wanted() int {
	if len(c.seen) < frameHeader {
		return frameHeader
	}
	return frameHeader + min(c.length(), frameStart)
}

// look records a refusal.
func (c *http2Conn) look() {
	payload := c.seen[frameHeader:]
	switch http2.FrameType(c.seen[3]) {
	case http2.FrameHeaders:
		if len(payload) > 0 && payload[0] == status400 && c.flow.badRequests.Add(-1) < 0 {
			c.flow.badRequests.Add(1)
			c.recordMalformed("400 Bad Request")
		}
	case http2.FrameRSTStream:
		if len(payload) == 4 && http2.ErrCode(binary.BigEndian.Uint32(payload)) == http2.ErrCodeProtocol {
			c.recordMalformed(http2.ErrCodeProtocol.String())
		}
	case http2.FrameGoAway:
		if len(payload) == frameStart {
			if code := http2.ErrCode(binary.BigEndian.Uint32(payload[4:])); code != http2.ErrCodeNo {
				c.recordMalformed(code.String())
			}
		}
	}
}

// recordMalformed records an error of the client's. One that ends a stream does not
// end the connection (RFC 9113 section 5.4), so that their number is bounded.
func (c *http2Conn) recordMalformed(what string) {
	if c.malformed++; c.malformed <= maxMalformed {
		c.flow.record(Record{Kind: Connect, Outcome: decision.Denied, Layer: LayerHTTP,
			Reason: fmt.Sprintf("malformed HTTP/2: %s", what)})
	}
}

// ambiguous refuses header fields of HTTP/2 that net/http reads past and that
// others may read: in HTTP/1 it refuses them itself (RFC 9113 sections 8.1.1
// and 8.3.1).
func ambiguous(r *http.Request) *refusal {
	if r.ProtoMajor < 2 {
		return nil
	}
	lengths := r.Header["Content-Length"]
	if len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.FormatInt(r.ContentLength, 10) ||
		len(r.Header["Host"]) > 0 {
		return refusedBody(http.StatusBadRequest, "invalid_request_header",
			"Content-Length or Host is malformed or given twice")
	}
	return nil
}
