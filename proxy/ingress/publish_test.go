// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"openshell.ai/openshell/netns"
)

func TestParsePublication(t *testing.T) {
	for _, tt := range []struct {
		in, want string // "" for an error
	}{
		{"8080:80", "127.0.0.1:8080:80"},
		{"8080:80/tcp", "127.0.0.1:8080:80"},
		{"5353:53/udp", "127.0.0.1:5353:53/udp"},
		{"0.0.0.0:8080:80", "0.0.0.0:8080:80"},
		{"[::1]:8080:80", "[::1]:8080:80"},
		{"8080", ""}, {"", ""}, {":80", ""}, {"8080:", ""}, {"0:80", ""}, {"80:0", ""}, {"80:65536", ""},
		{"-1:80", ""}, {"host:8080:80", ""}, {"8080:80/sctp", ""}, {"8080:80/", ""}, {"[fe80::1%eth0]:80:80", ""},
	} {
		p, err := ParsePublication(tt.in)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%q is %s", tt.in, p)
		case tt.want == "" && !strings.Contains(err.Error(), "[ADDRESS:]HOSTPORT:PORT"):
			t.Errorf("%q: %v", tt.in, err)
		case tt.want != "" && (err != nil || p.String() != tt.want):
			t.Errorf("%q is %s, %v; want %s", tt.in, p, err, tt.want)
		}
	}
}

func TestPublishedPorts(t *testing.T) {
	own := netip.MustParseAddr("10.88.0.7")
	outer, peer, inner := plumbed(t, own)
	greet(t, inner, "127.0.0.1:80")
	greet(t, inner, "[::1]:81")
	echo(t, inner, "127.0.0.1:53")
	var list []Publication
	for _, s := range []string{"8080:80", "10.88.0.7:8081:81", "0.0.0.0:5353:53/udp"} {
		p, err := ParsePublication(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	relays, err := Publish(t.Context(), outer, inner, list, Limits{Connections: 16})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range relays {
		t.Cleanup(r.Wait)
	}
	for _, tt := range []struct {
		from     *netns.Namespace
		to, want string
	}{
		{outer, "127.0.0.1:8080", "127.0.0.1:80 heard 127.0.0.1 say hi"},
		{peer, "10.88.0.7:8081", "[::1]:81 heard ::1 say hi"},
	} {
		c, err := tt.from.Dial(t.Context(), "tcp", netip.MustParseAddrPort(tt.to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "hi")
		c.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.to, got, err, tt.want)
		}
	}
	for _, from := range []*netns.Namespace{outer, peer} {
		if got, err := ask(t, dialUDP(t, from, "10.88.0.7:5353"), "hi"); err != nil || got != "127.0.0.1:53 heard 127.0.0.1 say hi" {
			t.Errorf("UDP: %q, %v", got, err)
		}
	}
	if c, err := peer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("10.88.0.7:8080")); err == nil {
		c.Close()
		t.Error("a port on loopback answers others")
	}
	for _, taken := range []Publication{list[0], list[2]} {
		_, err := Publish(t.Context(), outer, inner, []Publication{{Listen: netip.MustParseAddrPort("127.0.0.1:9999"), Port: 1}, taken}, Limits{Connections: 16})
		if err == nil || !strings.HasSuffix(err.Error(), "is in use by another program") || strings.Contains(err.Error(), "\n") {
			t.Errorf("a port in use: %v", err)
		}
		if c, err := outer.Dial(t.Context(), "tcp", netip.MustParseAddrPort("127.0.0.1:9999")); err == nil {
			c.Close()
			t.Error("another port is still listened on")
		}
	}
}
