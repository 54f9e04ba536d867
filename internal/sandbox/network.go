// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/libexec"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/identity"
	"openshell.ai/openshell/proxy/ingress"
	"openshell.ai/openshell/proxy/names"
)

// makeNetwork opens the outer namespace and makes the sealed inner one.
func (s *Sandbox) makeNetwork() (err error) {
	switch s.request.Outer.Kind {
	case OuterHost:
		s.outer, err = netns.Home()
	case OuterPath:
		s.outer, err = netns.Open(s.request.Outer.Path)
		s.lent = true
	case OuterEmpty:
		s.outer, err = netns.New()
	case OuterLate: // see admit
	default:
		err = fmt.Errorf("outer namespace kind %q", s.request.Outer.Kind)
	}
	if err != nil {
		return err
	}
	if err := s.makeInner(); err != nil || s.request.Outer.Kind != OuterLate {
		return err
	}
	// What the kernel puts into every namespace is none of the engine's.
	if s.native, err = netns.Devices(s.inner); err != nil {
		return err
	}
	return netns.Loopback(s.inner)
}

// makeInner makes the inner namespace, which belongs to the container's user
// namespace.
func (s *Sandbox) makeInner() (err error) {
	owner := s.request.User
	if owner == nil {
		s.inner, err = netns.New()
		return err
	}
	launcher, err := libexec.Find(confine.InitName)
	if err != nil {
		return err
	}
	if s.inner, err = netns.NewOwned(*owner, launcher, confine.NetworkFlag); err != nil || owner.Path != "" {
		return err
	}
	s.user, err = s.inner.OwnerFile()
	return err
}

// ownAddresses are the outer namespace's, which the workload sees as its own.
// The host's are not lent to it.
func (s *Sandbox) ownAddresses() ([]netip.Addr, error) {
	if !s.lent {
		return nil, nil
	}
	return netns.Addresses(s.outer)
}

// serveNetwork seals the inner namespace and starts the servers in it. The
// rules come last: until then nothing listens that they could lead to. What
// arrives in a namespace that the engine prepared is brought in, which the proxy
// takes answers to.
func (s *Sandbox) serveNetwork() error {
	var err error
	if s.own, err = s.ownAddresses(); err != nil {
		return err
	}
	ipv6, err := netns.Seal(s.inner, s.own)
	if err != nil {
		return err
	}
	l, err := s.listen(ipv6)
	if err != nil {
		return err
	}
	if err := s.holdNetwork(l); err != nil {
		l.close()
		return err
	}
	return s.serveListeners(l, nil)
}

// serveListeners starts the servers for the listeners, which it takes over. known
// are the names that have addresses already.
func (s *Sandbox) serveListeners(l *listeners, known []numberedName) (err error) {
	serving := false
	defer func() {
		if !serving {
			l.close()
		}
	}()
	if err := s.startIngress(); err != nil {
		return err
	}
	finder, err := identity.NewFinder(s.inner)
	if err != nil {
		return err
	}
	finder.Container, finder.Roots = s.programs.container, s.programs.roots
	tracked, err := netns.NewConntrack(s.inner)
	if err != nil {
		finder.Close()
		return err
	}
	table := names.NewTable(func(i uint32, name string) error {
		return s.remember(entry{Name: &numberedName{i, name}})
	})
	for _, n := range known {
		table.Restore(n.Number, n.Name)
	}
	upstream := names.NewUpstream(s.outer, s.nameservers, s.hosts.Hosts)
	if s.siteProxy != nil {
		s.siteProxy.Dial = s.outer.Dial
	}
	s.proxy = proxy.New(s.proxyConfig(table, upstream, finder, tracked))
	server := &names.Server{
		Table: table, Upstream: upstream, Gate: s, Search: s.request.DNS.Search, IPv6: len(l.packets) > 1, Local: true,
	}
	if s.siteProxy != nil {
		server.Elsewhere = s.siteProxy.TakesName
	}
	serving = true
	if s.request.DNS.Embedded {
		upstream.UseEmbedded(s.inner)
		server.Forwarded = upstream.Forwarded
	}
	s.wg.Go(func() { s.proxy.Serve(s.ctx, l.transparent, l.datagrams); finder.Close(); tracked.Close() })
	s.wg.Go(func() { server.Serve(s.ctx, l.packets, l.resolvers) })
	if err := netns.Intercept(s.inner, s.own); err != nil {
		return err
	}
	if s.request.HostNetwork {
		s.wg.Go(s.mirrorListeners)
	}
	published, err := ingress.Publish(s.ctx, s.outer, s.inner, s.request.Publish, s.ingressLimits())
	for _, r := range published {
		s.wg.Go(r.Wait)
	}
	return err
}

// mirrorListeners makes the workload's servers reachable at the host's addresses.
func (s *Sandbox) mirrorListeners() {
	skip := []netip.Addr{netns.ProxyAddr4, netns.ProxyAddr6}
	err := ingress.Mirror(s.ctx, s.outer, s.inner, skip, s.ingressLimits(), func(p ingress.Publication, err error) {
		s.recordError(fmt.Sprintf("the workload listens at %s, and is not reachable there from the host's network", p.Listen), err)
	})
	if err != nil {
		s.recordError("what the workload listens at is not reachable from the host's network", err)
	}
}

func (s *Sandbox) ingressLimits() ingress.Limits {
	return ingress.Limits{Connections: s.config.Limits.Connections, Idle: s.config.Limits.IdleTimeout}
}

func (s *Sandbox) proxyConfig(table *names.Table, upstream *names.Upstream, finder *identity.Finder,
	tracked *netns.Conntrack) proxy.Config {
	c := proxy.Config{
		Inner:            s.inner,
		Outer:            s.outer,
		Snapshot:         s.snapshot,
		Names:            table,
		Hosts:            s.hosts.Hosts,
		Search:           s.request.DNS.Search,
		Resolve:          upstream.Resolve,
		Chain:            s.siteProxy,
		Original:         tracked.Original,
		Identify:         finder.Identify,
		IdentifyDatagram: finder.IdentifyDatagram,
		CA:               s.authority,
		Roots:            s.upstreamCAs,
		Record:           s.observe,
		Local:            s.localHandler(),
		OmitNextSteps:    !s.config.PolicyLocal.Enabled,
		MaxConnections:   s.config.Limits.Connections,
		IdleTimeout:      s.config.Limits.IdleTimeout,
		HeaderBytes:      s.config.Limits.HeaderBytes,
		Memory:           int64(s.config.Supervisor.Memory),
	}
	if s.ingress != nil {
		c.Answer = s.ingress.Answer
	}
	return c
}

// listeners are the sockets in the inner namespace that its rules lead to.
type listeners struct {
	transparent, resolvers []*net.TCPListener
	packets                []*net.UDPConn // DNS
	datagrams              []*net.UDPConn // everything else
}

func (l *listeners) close() {
	for _, t := range slices.Concat(l.transparent, l.resolvers) {
		t.Close()
	}
	for _, p := range slices.Concat(l.packets, l.datagrams) {
		p.Close()
	}
}

// listen opens the sandbox's listeners inside the inner namespace: all or none.
func (s *Sandbox) listen(ipv6 bool) (_ *listeners, err error) {
	addrs := []netip.Addr{netns.ProxyAddr4}
	if ipv6 {
		addrs = append(addrs, netns.ProxyAddr6)
	}
	l := new(listeners)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	for _, a := range addrs {
		t, err := s.inner.Listen(netip.AddrPortFrom(a, netns.TransparentPort))
		if err != nil {
			return nil, err
		}
		l.transparent = append(l.transparent, t)
		r, err := s.inner.Listen(netip.AddrPortFrom(a, netns.DNSPort))
		if err != nil {
			return nil, err
		}
		l.resolvers = append(l.resolvers, r)
		p, err := s.inner.ListenPacket(netip.AddrPortFrom(a, netns.DNSPort))
		if err != nil {
			return nil, err
		}
		l.packets = append(l.packets, p)
		d, err := s.inner.ListenDatagrams(netip.AddrPortFrom(a, netns.DatagramPort))
		if err != nil {
			return nil, err
		}
		l.datagrams = append(l.datagrams, d)
	}
	return l, nil
}

// readNameservers returns where names are looked up: the node's servers, or the
// container's.
func (s *Sandbox) readNameservers() ([]netip.AddrPort, error) {
	list := s.config.DNS.Upstream
	if len(list) == 0 {
		list = s.request.DNS.Servers
	}
	var servers []netip.AddrPort
	for _, text := range list {
		server, err := parseServer(text)
		if err != nil {
			return nil, fmt.Errorf("dns.upstream: %w", err)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// parseServer reads an address with or without a port; DNS's is 53.
func parseServer(text string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is neither an address nor address:port", text)
	}
	return netip.AddrPortFrom(a, 53), nil
}

// MayResolve implements names.Gate: in enforcing mode only names that a rule
// knows are sent to a DNS server, since names carry data, and those of services
// of hosts that a rule knows.
func (s *Sandbox) MayResolve(name string) bool {
	return s.snapshot().MayResolve(name, names.ServiceHost(name))
}

// reconsider closes what is no longer allowed.
func (s *Sandbox) reconsider() {
	if s.proxy != nil {
		s.proxy.Reconsider()
	}
}

// followOwner sees to it that no container outlives the owner, however that ends.
func (s *Sandbox) followOwner() error {
	if s.request.Owner == 0 {
		return nil
	}
	owner, err := openProcess(s.request.Owner)
	if err != nil {
		return fmt.Errorf("watch the sandbox's owner: %w", err)
	}
	s.wg.Go(func() {
		defer owner.close()
		defer context.AfterFunc(s.ctx, owner.close)()
		if owner.ended(0) {
			s.stopWorkload()
		}
	})
	return nil
}

// stopWorkload ends every container's first process. Where that is not known yet,
// watch sees to it.
func (s *Sandbox) stopWorkload() {
	s.mu.Lock()
	s.stopping = true
	members := slices.DeleteFunc(slices.Clone(s.members), func(m *member) bool { return m.pid == 0 })
	s.mu.Unlock()
	for _, m := range members {
		if err := m.kill(); err != nil {
			s.recordError("container "+m.ID+" could not be stopped", err)
		}
	}
}
