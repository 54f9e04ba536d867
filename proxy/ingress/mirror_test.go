// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"maps"
	"net/netip"
	"slices"
	"testing"
)

func TestWanted(t *testing.T) {
	at := func(list ...string) (out []netip.AddrPort) {
		for _, s := range list {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	skip := netip.MustParseAddr("192.0.2.1")
	got := wanted(at("0.0.0.0:80", "[::]:81", "127.0.0.1:50000", "192.0.2.1:82"), at("0.0.0.0:53", "0.0.0.0:40000", "0.0.0.0:0"), []netip.Addr{skip})
	var list []string
	for _, p := range slices.SortedFunc(maps.Keys(got), comparePublications) {
		list = append(list, p.String())
	}
	want := []string{"0.0.0.0:53:53/udp", "0.0.0.0:80:80", "0.0.0.0:81:81", "127.0.0.1:50000:50000", "[::]:81:81"}
	if !slices.Equal(list, want) {
		t.Errorf("got %q, want %q", list, want)
	}
}
