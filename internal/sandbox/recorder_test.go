// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/identity"
)

var curl = identity.Process{PID: 7, Path: "/usr/bin/curl", SHA256: "ab", Ancestors: []string{"/bin/sh"}}

func TestEventOf(t *testing.T) {
	now := time.Now()
	ip := netip.MustParseAddr("192.0.2.1")
	process := &audit.Process{PID: 7, Path: "/usr/bin/curl", SHA256: "ab", Ancestors: []string{"/bin/sh"}}
	tests := []struct {
		name   string
		record proxy.Record
		want   audit.Event
	}{
		{"allowed connection", proxy.Record{Time: now, Kind: proxy.Connect, Outcome: decision.Allowed, Host: "a.test", Port: 443, Process: curl, Addrs: []netip.Addr{ip}, Policy: "p"},
			audit.Event{Class: audit.ClassNetwork, Activity: "OPEN", Action: audit.ActionAllowed, Disposition: audit.DispositionAllowed,
				IP: ip, Process: process, Policy: "p", Message: "CONNECT allowed a.test:443"}},
		{"denied connection to an address", proxy.Record{Time: now, Kind: proxy.Connect, Outcome: decision.Denied, Host: "192.0.2.1", Port: 443, Layer: "l4", Reason: "no"},
			audit.Event{Class: audit.ClassNetwork, Activity: "REFUSE", Action: audit.ActionDenied, Disposition: audit.DispositionBlocked,
				IP: ip, Engine: "l4", Reason: "no", Message: "CONNECT denied 192.0.2.1:443"}},
		{"permissive connection to IPv6", proxy.Record{Time: now, Kind: proxy.Raw, Outcome: decision.Logged, Host: "2001:db8::1", Port: 443},
			audit.Event{Class: audit.ClassNetwork, Activity: "OPEN", Action: audit.ActionAllowed, Disposition: audit.DispositionLogged,
				IP: netip.MustParseAddr("2001:db8::1"), Message: "CONNECT audit-allow [2001:db8::1]:443 (permissive)"}},
		{"audited request", proxy.Record{Time: now, Kind: proxy.Request, Outcome: decision.Audited, Host: "a.test", Port: 443, Method: "PUT", Scheme: "https", Path: "/x", Status: 201},
			audit.Event{Class: audit.ClassHTTP, Activity: "PUT", Action: audit.ActionAllowed, Disposition: audit.DispositionLogged,
				HTTP: &audit.HTTP{Method: "PUT", Scheme: "https", Path: "/x", Status: 201}, Message: "L7_REQUEST audit PUT a.test:443/x"}},
		{"denied request", proxy.Record{Time: now, Kind: proxy.Request, Outcome: decision.Denied, Host: "a.test", Port: 443, Method: "GET", Path: "/"},
			audit.Event{Class: audit.ClassHTTP, Activity: "GET", Action: audit.ActionDenied, Disposition: audit.DispositionBlocked,
				HTTP: &audit.HTTP{Method: "GET", Path: "/"}, Message: "L7_REQUEST denied GET a.test:443/"}},
		{"denied message", proxy.Record{Time: now, Kind: proxy.Message, Outcome: decision.Denied, Host: "a.test", Port: 443, Method: "WEBSOCKET_TEXT", Path: "/ws"},
			audit.Event{Class: audit.ClassHTTP, Activity: "WEBSOCKET_TEXT", Action: audit.ActionDenied, Disposition: audit.DispositionBlocked,
				HTTP: &audit.HTTP{Method: "WEBSOCKET_TEXT", Path: "/ws"}, Message: "L7_MESSAGE denied WEBSOCKET_TEXT a.test:443/ws"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Time, tt.want.Host, tt.want.Port, tt.want.Protocol = now, tt.record.Host, 443, "tcp"
			if got := eventOf(tt.record); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// A zero outcome must not read as an allowance.
func TestEventOfUnknownOutcome(t *testing.T) {
	if e := eventOf(proxy.Record{Outcome: decision.Outcome(99)}); e.Action != audit.ActionDenied {
		t.Errorf("got %+v", e)
	}
}

func TestDenialOf(t *testing.T) {
	for kind, want := range map[proxy.Kind]learn.Kind{proxy.Connect: learn.KindConnect, proxy.Raw: learn.KindRaw, proxy.Request: learn.KindHTTP} {
		r := proxy.Record{Time: time.Now(), Kind: kind, Outcome: decision.Logged, Layer: "l4", Host: "a.test", Port: 443, Process: curl,
			Reason: "no", Method: "GET", Path: "/x", Status: 200, TLS: "terminated", TLSSkip: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
		got := denialOf(r)
		if got.Kind != want || !got.Permissive || got.Host != r.Host || got.Port != r.Port || got.Protocol != "tcp" || got.Binary != curl.Path ||
			got.SHA256 != curl.SHA256 || len(got.Ancestors) != 1 || got.Layer != "l4" || got.Reason != "no" || got.Method != "GET" || got.Path != "/x" ||
			got.Status != 200 || got.TLS != "terminated" || !got.TLSSkip || len(got.IPs) != 1 || !got.Time.Equal(r.Time) {
			t.Errorf("got %+v", got)
		}
	}
	if denialOf(proxy.Record{Outcome: decision.Denied}).Permissive {
		t.Error("an enforced denial is permissive")
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]:5353": "[2001:db8::1]:5353", "dns.example": "", "": "", "192.0.2.1:x": "",
	} {
		got, err := parseServer(text)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
