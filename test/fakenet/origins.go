// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/vishvananda/netns"
)

// startOrigins starts every server but DNS.
func (n *Net) startOrigins() error {
	for _, start := range []func() error{
		n.startAPIs, n.startBadCertificates, n.startGit, n.startPackages,
		n.startRaw, n.startTLS, n.startUDP, n.startBlocked,
	} {
		if err := start(); err != nil {
			return err
		}
	}
	return nil
}

// listen opens a TCP listener of the internet on each of a host's addresses and
// gives each to serve, which must not block.
func (n *Net) listen(host string, port uint16, serve func(net.Listener)) error {
	for _, addr := range hosts[host] {
		if err := n.listenAt(n.spaces.internet, netip.AddrPortFrom(addr, port), serve); err != nil {
			return fmt.Errorf("listen for %s: %w", host, err)
		}
	}
	return nil
}

func (n *Net) listenAt(space netns.NsHandle, at netip.AddrPort, serve func(net.Listener)) error {
	l, err := listenIn(space, at)
	if err != nil {
		return err
	}
	n.closeLater(l)
	serve(l)
	return nil
}

// https serves a handler on port 443 of a host, with a certificate of the test
// authority for its name, the names and its addresses.
func (n *Net) https(host string, h http.Handler, names ...string) error {
	cert, err := n.ca.issue(leaf{names: append([]string{host}, names...), addrs: hosts[host], notAfter: n.ca.cert.NotAfter})
	if err != nil {
		return err
	}
	return n.listen(host, 443, func(l net.Listener) { n.serveHTTP(l, host, h, cert) })
}

// plainHTTP serves a handler without TLS.
func (n *Net) plainHTTP(host string, port uint16, h http.Handler) error {
	return n.listen(host, port, func(l net.Listener) { n.serveHTTP(l, host, h, nil) })
}

// serveHTTP records each request and lets h answer it: HTTP/1.1 and HTTP/2, the
// latter by ALPN with TLS and by prior knowledge without.
func (n *Net) serveHTTP(l net.Listener, origin string, h http.Handler, cert *tls.Certificate) {
	server := &http.Server{
		Handler:           n.recorded(origin, h),
		ErrorLog:          slog.NewLogLogger(n.log.With("origin", origin).Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second,
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return n.ctx },
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if cert != nil {
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*cert}}
	}
	n.closeLater(server)
	n.serving.Go(func() {
		if cert != nil {
			server.ServeTLS(l, "", "")
		} else {
			server.Serve(l)
		}
	})
}
