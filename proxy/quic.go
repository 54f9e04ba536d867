// SPDX-License-Identifier: Apache-2.0

package proxy

import "encoding/binary"

// quicHides is why QUIC is refused in permissive mode. Its client goes on over TCP,
// where the requests can be learned.
const quicHides = "QUIC hides its requests: it is refused unless a rule with protocol: udp allows it"

const (
	// minInitial is the least size of a client's first QUIC datagram, in bytes (RFC
	// 9000 section 14.1).
	minInitial = 1200
	// maxConnectionID is the longest connection ID of the versions that are known.
	maxConnectionID = 20

	longHeader = 0x80 // RFC 8999 section 5.1
	fixedBit   = 0x40 // RFC 9000 section 17.2; RFC 9287 lets it be anything
)

// isQUIC reports whether a datagram of a client may begin a QUIC connection, which
// takes a packet with a long header; of several in one datagram each has the version.
// Of a version that is known it is QUIC whatever its size, and whatever the
// fixed bit. What has another version is taken for QUIC only where it looks like
// a first datagram: other protocols begin with such a byte too.
func isQUIC(b []byte) bool {
	if len(b) < 7 || b[0]&longHeader == 0 {
		return false
	}
	destination := int(b[5])
	if len(b) < 7+destination {
		return false
	}
	source := int(b[6+destination])
	if len(b) < 7+destination+source {
		return false
	}
	version := binary.BigEndian.Uint32(b[1:])
	if knownQUIC(version) {
		return destination <= maxConnectionID && source <= maxConnectionID
	}
	// 0 is for servers, which list the versions that they have.
	return version != 0 && b[0]&fixedBit != 0 && len(b) >= minInitial
}

// knownQUIC reports whether a version of QUIC is one in use: 1 (RFC 9000), 2 (RFC
// 9369), the drafts of both and those of vendors.
func knownQUIC(version uint32) bool {
	switch version {
	case 0x00000001, 0x6b3343cf, 0x709a50c4:
		return true
	}
	switch version >> 8 {
	case 0xff0000, 0xff0200, 0xfaceb0: // drafts; mvfst
		return true
	case 0x513034, 0x513035, 0x543035: // Google's Q04x, Q05x and T05x
		return true
	}
	return false
}
