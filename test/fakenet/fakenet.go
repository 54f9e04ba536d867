// SPDX-License-Identifier: Apache-2.0

// Package fakenet is a small internet for tests and demonstrations: names,
// addresses, certificates and servers, all in network namespaces of its own, so
// that nothing needs (or can reach) the real one.
//
// It makes two namespaces joined by a veth pair. "Outer" stands for the network
// that a container engine prepared for a workload: one card, a default route and
// a loopback. "Internet" stands for everything else: every address is local
// there, a DNS server answers for the names in hosts.go, and the origins listen
// on the names' addresses and write down what they saw. An address nobody
// listens on refuses connections at once.
//
// The package owns the network, its servers and the record of what reached them.
// It does not know the sandbox: it only writes a node configuration
// ([Net.WriteConfig]) that points one at this internet. Linux and root only.
//
// The namespaces are held by file descriptors of this process and by nothing
// else, so they go with it however it ends.
package fakenet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

// Options says how to make a [Net]. The zero value is ready to use.
type Options struct {
	// Log receives the servers' own complaints (a failed TLS handshake, a broken
	// connection). Nil discards them.
	Log *slog.Logger
}

// Net is a running fake internet. Its methods may be called from several
// goroutines at once.
type Net struct {
	log     *slog.Logger
	spaces  *namespaces
	dir     *scratch
	ca      *authority
	zone    *zone
	journal journal
	close   func() error

	releases atomic.Int32 // of the packages, since the last Reset

	// ctx ends what no server's Close ends: WebSockets and raw connections.
	ctx     context.Context
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu      sync.Mutex
	closers []io.Closer // servers and listeners, in the order they were started
}

// New makes the namespaces and starts every server. The caller must be root and
// must call [Net.Close]. Errors name the step that failed.
func New(opts Options) (*Net, error) {
	n := &Net{log: opts.Log, zone: newZone()}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.close = sync.OnceValue(n.tearDown)
	if err := n.start(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Net) start() error {
	var err error
	if n.dir, err = newScratch(); err != nil {
		return err
	}
	if n.spaces, err = newNamespaces(); err != nil {
		return err
	}
	if n.ca, err = newAuthority("openshell fakenet CA"); err != nil {
		return err
	}
	if err := n.ca.writePEM(n.CACert()); err != nil {
		return fmt.Errorf("write the CA certificate: %w", err)
	}
	if err := n.startDNS(); err != nil {
		return err
	}
	return n.startOrigins()
}

// Close stops the servers and removes the namespaces and files. Processes that
// still run in the outer namespace keep it alive, without a card. Calling it
// again returns the first call's error.
func (n *Net) Close() error { return n.close() }

func (n *Net) tearDown() error {
	n.cancel()
	var errs []error
	n.mu.Lock()
	for _, c := range slices.Backward(n.closers) {
		// A listener is also closed by the server that it was given to.
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	n.mu.Unlock()
	n.serving.Wait()
	if n.spaces != nil {
		errs = append(errs, n.spaces.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// closeLater has c closed by [Net.Close].
func (n *Net) closeLater(c io.Closer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closers = append(n.closers, c)
}

// Outer is the outer namespace's path, /proc/PID/fd/N: it can be opened, put in
// an OCI spec or given to nsenter by any process for as long as the Net is open.
func (n *Net) Outer() string { return n.spaces.outerPath() }

// Do runs f with the calling goroutine locked to a thread in the outer
// namespace: sockets opened and processes started by f itself (not by goroutines
// that it starts) are there. It returns f's error.
func (n *Net) Do(f func() error) error { return runIn(n.spaces.outer, f) }

// DoInternet is [Net.Do] for the internet's side, for tests of what comes in.
func (n *Net) DoInternet(f func() error) error { return runIn(n.spaces.internet, f) }

// CACert is the path of the PEM file with the certificate of the authority that
// signed the origins' certificates, for openshell's tls.extra_roots.
func (n *Net) CACert() string { return filepath.Join(n.dir.path, "ca.pem") }

// DNS is the IPv4 address and port of the name server, for openshell's
// dns.upstream.
func (n *Net) DNS() netip.AddrPort { return netip.AddrPortFrom(dns4, 53) }

// DNS6 is the IPv6 address and port of the name server.
func (n *Net) DNS6() netip.AddrPort { return netip.AddrPortFrom(dns6, 53) }

// Requests returns what the origins saw since the last [Net.Reset], oldest first.
func (n *Net) Requests() []Request { return n.journal.requests.snapshot() }

// Saw lists what an origin ([Request.Origin]) saw since the last [Net.Reset]:
// "METHOD target" of requests, the protocol's name of raw connections.
func (n *Net) Saw(origin string) (seen []string) {
	for _, r := range n.Requests() {
		switch {
		case r.Origin != origin:
		case r.Method == "":
			seen = append(seen, r.Proto)
		default:
			seen = append(seen, r.Method+" "+r.Target)
		}
	}
	return seen
}

// Queries returns what the name server was asked since the last [Net.Reset],
// oldest first.
func (n *Net) Queries() []Query { return n.journal.queries.snapshot() }

// Reset forgets every request and query, and restarts the names whose answers
// depend on how often they were asked ([RebindHost]) and the packages' versions.
func (n *Net) Reset() {
	n.journal.requests.reset()
	n.journal.queries.reset()
	n.zone.reset()
	n.releases.Store(0)
}
