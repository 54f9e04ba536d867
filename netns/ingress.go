// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ingressTable is the nftables table in an outer namespace. It goes with the
// namespace, or with RemoveIngress.
const ingressTable = "openshell-ingress"

const (
	chainArriving = "arriving" // from other hosts
	chainLocal    = "local"    // from processes that joined the outer namespace
)

// IngressPorts are where the listeners for what comes in are, on any address; 0
// where there is none.
type IngressPorts struct{ TCP4, TCP6, UDP4, UDP6 uint16 }

// Ingress brings TCP connections that arrive in an outer namespace for its own
// addresses, or that are made there to its loopback, and UDP datagrams that
// arrive for its own addresses and answer nothing that was sent from there, to
// the given ports. Engines forward published ports and probes to the addresses,
// and port-forwarding, which is TCP's, enters the namespace for the loopback.
func Ingress(outer *Namespace, own []netip.Addr, ports IngressPorts) error {
	conn, err := nftables.New(nftables.WithNetNSFd(outer.Fd()))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	// A sandbox that was killed may have left its own: adding a table that is
	// there does nothing, and all of this takes effect at once.
	table := &nftables.Table{Name: ingressTable, Family: nftables.TableFamilyINet}
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	accept := nftables.ChainPolicyAccept
	for name, hook := range map[string]*nftables.ChainHook{
		chainArriving: nftables.ChainHookPrerouting,
		chainLocal:    nftables.ChainHookOutput,
	} {
		conn.AddChain(&nftables.Chain{Name: name, Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: hook, Priority: nftables.ChainPriorityNATDest, Policy: &accept})
	}
	conn.AddChain(&nftables.Chain{Name: chainDatagrams, Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle, Policy: &accept})
	for _, r := range ingressRules(own, ports) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Name: r.chain, Table: table}, Exprs: r.exprs})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("install ingress rules: %w", err)
	}
	return nil
}

// RemoveIngress takes the rules away; none being there is no error.
func RemoveIngress(outer *Namespace) error {
	conn, err := nftables.New(nftables.WithNetNSFd(outer.Fd()))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == ingressTable {
			conn.DelTable(t)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove ingress rules: %w", err)
	}
	return nil
}

func ingressRules(own []netip.Addr, ports IngressPorts) []rule {
	own4, own6 := split(own)
	rules := []rule{{chainDatagrams, join(reply(), verdict(expr.VerdictAccept))}}
	for _, f := range []struct {
		family
		own      []netip.Addr
		loopback netip.Prefix
		tcp, udp uint16
	}{
		{family{proto: unix.NFPROTO_IPV4, offset: 16}, own4, netip.MustParsePrefix("127.0.0.0/8"), ports.TCP4, ports.UDP4},
		{family{proto: unix.NFPROTO_IPV6, offset: 24}, own6, netip.MustParsePrefix("::1/128"), ports.TCP6, ports.UDP6},
	} {
		for _, a := range f.own {
			to := join(f.match(), f.daddr(netip.PrefixFrom(a, a.BitLen())))
			if f.tcp != 0 {
				rules = append(rules, rule{chainArriving, join(to, l4proto(unix.IPPROTO_TCP), redirect(f.tcp))})
			}
			if f.udp != 0 {
				rules = append(rules, rule{chainDatagrams, join(notLoopback(expr.MetaKeyIIFNAME), to,
					l4proto(unix.IPPROTO_UDP), f.tproxy(f.udp), verdict(expr.VerdictAccept))})
			}
		}
		if f.tcp != 0 {
			rules = append(rules, rule{chainLocal,
				join(f.match(), f.daddr(f.loopback), l4proto(unix.IPPROTO_TCP), redirect(f.tcp))})
		}
	}
	return rules
}

// redirect sends a connection to a port of this namespace.
func redirect(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}
