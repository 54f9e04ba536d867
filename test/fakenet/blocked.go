// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netns"
)

// startBlocked puts the HTTP API behind the addresses that a sandbox must never
// reach, so that a refusal is the guard's doing and not the network's. Port 6443
// is a control plane's.
func (n *Net) startBlocked() error {
	names := []string{PrivateHost, MetadataHost, GoogleMetadata, MixedHost, RebindHost, CNAMEPrivate,
		MappedHost, NAT64Host, SixToFourHost, BenchmarkHost, "*." + RangesHost}
	cert, err := n.ca.issue(leaf{names: names, addrs: blocked, notAfter: n.ca.cert.NotAfter})
	if err != nil {
		return err
	}
	serve := func(space netns.NsHandle, origin string, addr netip.Addr, port uint16) error {
		secret := cert
		if port == 80 {
			secret = nil
		}
		err := n.listenAt(space, netip.AddrPortFrom(addr, port), func(l net.Listener) {
			n.serveHTTP(l, origin, api{origin: origin}, secret)
		})
		if err != nil {
			return fmt.Errorf("listen on a blocked address: %w", err)
		}
		return nil
	}
	for _, addr := range blocked {
		for _, port := range []uint16{80, 443, 6443} {
			if err := serve(n.spaces.internet, "blocked", addr, port); err != nil {
				return err
			}
		}
	}
	for _, addr := range hosts[LoopbackHost] {
		if err := serve(n.spaces.outer, "loopback", addr, 80); err != nil {
			return err
		}
	}
	return nil
}

// startBadCertificates serves HTTPS that no client should accept.
func (n *Net) startBadCertificates() error {
	stranger, err := newAuthority("a stranger's CA")
	if err != nil {
		return err
	}
	valid := n.ca.cert.NotAfter
	for _, site := range []struct {
		host   string
		issuer *authority
		leaf   leaf
	}{
		{ExpiredHost, n.ca, leaf{names: []string{ExpiredHost}, notAfter: time.Now().Add(-24 * time.Hour)}},
		{UntrustedHost, stranger, leaf{names: []string{UntrustedHost}, notAfter: valid}},
		{MisnamedHost, n.ca, leaf{names: []string{"someone-else.example"}, notAfter: valid}},
	} {
		cert, err := site.issuer.issue(site.leaf)
		if err != nil {
			return err
		}
		err = n.listen(site.host, 443, func(l net.Listener) { n.serveHTTP(l, site.host, api{origin: site.host}, cert) })
		if err != nil {
			return err
		}
	}
	return nil
}
