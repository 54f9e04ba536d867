// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// DialContext connects from the outer namespace, resolving names with the fake
// name server and trying their addresses in turn. The networks are those of
// [net.Dialer.DialContext] for TCP and UDP.
func (n *Net) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	family := "ip"
	if last := network[len(network)-1]; last == '4' || last == '6' {
		family += string(last)
	}
	addrs, err := n.lookup(ctx, family, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, addr := range addrs {
		conn, err := n.dialOne(ctx, network, net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialOne connects to one literal address: given several, net.Dialer would race
// them on other threads, in another namespace.
func (n *Net) dialOne(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

func (n *Net) lookup(ctx context.Context, family, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	resolver := &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return n.dialOne(ctx, network, n.DNS().String())
		},
	}
	addrs, err := resolver.LookupNetIP(ctx, family, host+".")
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	return addrs, nil
}

// Client is an HTTP client that is in the outer namespace and trusts the test
// authority. It keeps no connections.
func (n *Net) Client() *http.Client {
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DialContext:       n.DialContext,
			TLSClientConfig:   &tls.Config{RootCAs: n.ca.pool()},
			ForceAttemptHTTP2: true,
			DisableKeepAlives: true,
		},
	}
}
