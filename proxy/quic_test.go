// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestIsQUIC(t *testing.T) {
	for name, tt := range map[string]struct {
		begins string
		size   int // with zeros behind it
		want   bool
	}{
		"version 1":               {"c3 00000001 08", 1200, true},
		"version 1, 0-RTT":        {"d3 00000001 08", 1200, true},
		"version 1, short":        {"c3 00000001 08", 20, true},
		"version 1, greased bit":  {"83 00000001 08", 1200, true},
		"version 1, no IDs":       {"c3 00000001 00 00", 7, true},
		"version 1, a long ID":    {"c3 00000001 15", 1200, false}, // servers drop it
		"version 1, cut off":      {"c3 00000001 08", 14, false},
		"version 2":               {"d3 6b3343cf 08", 1200, true},
		"a draft":                 {"c3 ff00001d 08", 1200, true},
		"a draft of version 2":    {"c3 709a50c4 08", 1200, true},
		"Google's":                {"c3 51303530 08", 60, true},
		"mvfst":                   {"c3 faceb002 08", 60, true},
		"reserved":                {"c3 1a2a3a4a 08", 1200, true},
		"another version":         {"e3 01010101 01", 1200, true},
		"another, short":          {"c0 01010101 01", 1199, false},
		"another, the bit is 0":   {"80 01010101 01", 1200, false},
		"another, with a long ID": {"c0 01010101 ff", 1200, true},
		"version negotiation":     {"c0 00000000 08", 1200, false},
		"a short header":          {"40 00000001 08", 1200, false},
		"NTP":                     {"e3 0006ec00 00", 48, false},
		"RTP":                     {"80 60 1234 00000001", 1200, false},
		"DNS":                     {"abcd 0100 0001 0000 0000 0000 03", 40, false},
		"DTLS":                    {"16 feff 0000", 1200, false},
		"WireGuard":               {"01000000 1234", 148, false},
		"nothing":                 {"", 0, false},
	} {
		b, err := hex.DecodeString(string(bytes.ReplaceAll([]byte(tt.begins), []byte(" "), nil)))
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, make([]byte, max(0, tt.size-len(b)))...)
		if isQUIC(b) != tt.want {
			t.Errorf("%s: want %v", name, tt.want)
		}
	}
}

// FuzzIsQUIC checks that nothing behind the header hides it.
func FuzzIsQUIC(f *testing.F) {
	f.Add([]byte{0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0})
	f.Add([]byte{0x83, 0x6b, 0x33, 0x43, 0xcf, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if isQUIC(b) && !isQUIC(append(bytes.Clone(b), "more"...)) {
			t.Errorf("%x is QUIC, and with more behind it not", b)
		}
	})
}
