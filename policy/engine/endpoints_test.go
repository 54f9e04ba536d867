// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"strings"
	"testing"
)

func TestEndpoints(t *testing.T) {
	set, err := ParseEndpoints([]string{
		"db.example:5432", "Secret.Example.", "*.corp.example", "**.deep.example:443",
		"10.0.0.1", "10.0.0.2:22", "[2001:db8::1]:22", "2001:db8::2", "[2001:db8::3]",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host string
		port uint16
		want bool
	}{
		{"db.example", 5432, true}, {"db.example", 5433, false}, {"a.db.example", 5432, false},
		{"secret.example", 1, true}, {"SECRET.example.", 65535, true}, {"notsecret.example", 1, false},
		{"a.corp.example", 80, true}, {"corp.example", 80, false}, {"a.b.corp.example", 80, false},
		{"a.b.deep.example", 443, true}, {"a.b.deep.example", 80, false},
		{"10.0.0.1", 80, true}, {"::ffff:10.0.0.1", 80, true}, {"10.0.0.2", 80, false}, {"10.0.0.2", 22, true},
		{"2001:db8::1", 22, true}, {"2001:db8::1", 23, false}, {"[2001:db8:0::2]", 9, true}, {"2001:db8::3", 9, true},
		{"", 80, false}, {"0.0.0.1.corp.example", 80, false},
	} {
		if got := set.Contain(tt.host, tt.port); got != tt.want {
			t.Errorf("%s:%d: got %t", tt.host, tt.port, got)
		}
	}
	for host, want := range map[string]bool{"secret.example": true, "db.example": false, "a.corp.example": true, "a.deep.example": false} {
		if got := set.ContainHost(host); got != want {
			t.Errorf("%s on every port: got %t", host, got)
		}
	}
	var none *Endpoints
	if none.Contain("a.example", 80) || none.ContainHost("a.example") {
		t.Error("the nil set contains something")
	}
	if n := allocs(100, func() { set.Contain("www.python.example", 443) }); n != 0 {
		t.Errorf("%v allocations a decision", n)
	}
}

func TestParseEndpointsErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "label",
		"a.example:0":       "port",
		"a.example:":        "port",
		"a.example:65536":   "port",
		"a.example:x":       "port",
		"https://a.example": "scheme",
		"a.example/x":       "name or an address",
		"*":                 "wildcard",
		"*.com":             "TLD",
		"10.0.0.0/8":        "name or an address",
		"a b.example":       "invalid character",
	} {
		if set, err := ParseEndpoints([]string{"ok.example", text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v: want %q", text, set, err, want)
		}
	}
}
