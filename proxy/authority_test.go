// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSplitAuthority(t *testing.T) {
	for _, tt := range []struct {
		in, host string
		port     uint16
	}{
		{"a.example:443", "a.example", 443},
		{"A.Example.:0443", "a.example", 443},
		{"a.example", "a.example", 0},
		{"a_b-c.example", "a_b-c.example", 0},
		{"[::1]:8443", "::1", 8443},
		{"[::1]", "::1", 0},
		{"[0:0:0:0:0:0:0:1]", "::1", 0},
		{"[2A0E::1]:443", "2a0e::1", 443},
		{"[::ffff:45.64.45.12]:80", "45.64.45.12", 80},
		{"45.64.45.12:80", "45.64.45.12", 80},
	} {
		host, port, ok := splitAuthority(tt.in)
		if host != tt.host || port != tt.port || !ok {
			t.Errorf("%q: %q, %d, %v", tt.in, host, port, ok)
		}
	}
	for _, in := range []string{
		"", ".", ":443", "a.example:", "a.example:65536", "a.example:0", "a.example:-1", "a.example:+443", "a.example: 443", "a.example:443 ",
		"a.example:4_43", "a.example:0x1bb", "a.example:443:443", "user@a.example", "user:pw@a.example:443", "a.example@b.example", "a.example,b.example",
		"a..example", ".a.example", "a.example..", "a%2eexample", "a.example%00", "a.ex%C3%A4mple", "a.ex\u00e4mple", "a\u3002example", "a b.example", "a.example/", "a.example#", "a.example\\",
		"::1", "[::1", "::1]", "[::1]]", "[[::1]]", "[::1]x", "[::1%25lo]", "[::1%lo]", "[45.64.45.12]", "[a.example]", "[]",
		"127.1", "0177.0.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "1.2.3.4.5", "a.0x1", "a.1", "45.64.45.12.5", "45.064.45.12",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 127) + "example",
	} {
		if host, port, ok := splitAuthority(in); ok {
			t.Errorf("%q is taken for %q, %d", in, host, port)
		}
	}
}

func TestHostHeader(t *testing.T) {
	for _, tt := range []struct {
		host      string
		authority string
		sent      string // "": refused
	}{
		{"a.example", "a.example", "a.example"},
		{"a.example", "a.example:443", "a.example:443"},
		{"a.example", "A.EXAMPLE.:443", "a.example:443"},
		{"a.example", "a.example.", "a.example"},
		{"a.example", "a.example:0443", "a.example:443"},
		{"a.example", "a.example:+443", ""},
		{"a.example", "a.example:", ""},
		{"a.example", "a.example..", ""},
		{"a.example", "a.example:80", ""},
		{"a.example", "a.example:x", ""},
		{"a.example", "b.a.example", ""},
		{"a.example", "a.example@b.example", ""},
		{"a.example", "b.example@a.example", ""},
		{"a.example", "45.64.45.12", ""},
		{"45.64.45.12", "any.example", "any.example"},
		{"45.64.45.12", "Any.Example.:443", "any.example:443"},
		{"45.64.45.12", "any.example:444", ""},
		{"45.64.45.12", "user@any.example", ""},
		{"45.64.45.12", "[::ffff:45.64.45.12]", "45.64.45.12"},
		{"2a0e::1", "[2a0e::1]:443", "[2a0e::1]:443"},
		{"2a0e::1", "[2A0E:0::0:1]", "[2a0e::1]"},
	} {
		f := flowTo(tt.host)
		if sent, ok := f.hostHeader(tt.authority); sent != tt.sent || ok != (tt.sent != "") {
			t.Errorf("%q on a connection to %s: %q, %v", tt.authority, tt.host, sent, ok)
		}
	}
	if sent, ok := flowTo("a.example").hostHeader(""); sent != "" || !ok {
		t.Errorf("without a Host: %q, %v", sent, ok)
	}
}

// FuzzHostHeader checks that what is sent on can be read in one way, as the
// connection's own host and port.
func FuzzHostHeader(f *testing.F) {
	for _, authority := range []string{"a.example", "A.Example.:0443", "[2a0e::1]:443", "a@b:1", "127.1", "[::ffff:1.2.3.4%25x]"} {
		f.Add(authority, true)
		f.Add(authority, false)
	}
	f.Fuzz(func(t *testing.T, authority string, named bool) {
		own := "a.example"
		if !named {
			own = "2a0e::1"
		}
		flow := flowTo(own)
		sent, ok := flow.hostHeader(authority)
		if !ok || sent == "" {
			return
		}
		if named && sent != "a.example" && sent != "a.example:443" {
			t.Errorf("%q is sent as %q", authority, sent)
		}
		again, ok := flow.hostHeader(sent)
		if !ok && sent != own || again != sent && sent != own {
			t.Errorf("%q is sent as %q, which would be sent as %q, %v", authority, sent, again, ok)
		}
		if strings.ContainsAny(sent, "@%/ \\#?,") {
			t.Errorf("%q is sent as %q", authority, sent)
		}
		if a, err := netip.ParseAddr(strings.Trim(sent, "[]")); err == nil && a.Zone() != "" {
			t.Errorf("%q is sent as %q", authority, sent)
		}
	})
}
