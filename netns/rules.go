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

// TableName is the nftables table that holds every rule of a sealed namespace.
const TableName = "openshell"

// ctStatusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ctStatusDNAT = 1 << 5

// EngineResolver is where docker answers DNS queries inside a container's
// namespace, by sockets of its own there and rules for port 53. It would carry
// names past the sandbox's server, so that only the supervisor may talk to it.
var EngineResolver = netip.MustParseAddr("127.0.0.11")

// uninterceptedMark marks the supervisor's own connections (SO_MARK, socket(7)).
// A workload cannot have it, for that takes CAP_NET_ADMIN or CAP_NET_RAW.
const uninterceptedMark = 0x6f74

// rule is one nftables rule, named by the chain it belongs to.
type rule struct {
	chain string
	exprs []expr.Any
}

const (
	chainIntercept = "intercept" // rewrites destinations to the sandbox's servers
	chainDatagrams = "datagrams" // gives UDP to the sandbox, as it is
	chainInput     = "input"     // what may arrive: intercepted, or the workload's own
	chainOutput    = "output"    // nothing leaves by any device but lo
	chainForward   = "forward"   // nothing is forwarded
)

// datagramMark marks what TPROXY has found a socket for.
const datagramMark = 0x6f73

// Intercept installs the rules that bring every TCP connection, DNS query and
// UDP datagram of a sealed namespace to its servers, and refuse the rest. UDP is
// refused with an ICMP port-unreachable where nobody serves it, so that clients
// fall back at once. The rules are a convenience for the workload, not the seal:
// without them it reaches nothing. They take the place of earlier ones.
func Intercept(n *Namespace, own []netip.Addr) error {
	conn, err := nftables.New(nftables.WithNetNSFd(n.Fd()))
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	// Adding a table that is there does nothing, and all of this takes effect at
	// once.
	table := conn.AddTable(&nftables.Table{Name: TableName, Family: nftables.TableFamilyINet})
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range chains(table) {
		conn.AddChain(c)
	}
	for _, r := range interceptionRules(own) {
		conn.AddRule(&nftables.Rule{
			Table: table,
			Chain: &nftables.Chain{Name: r.chain, Table: table},
			Exprs: r.exprs,
		})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("install interception rules (the kernel needs nf_tables with nat, ct and reject): %w", err)
	}
	return nil
}

func chains(table *nftables.Table) []*nftables.Chain {
	drop := nftables.ChainPolicyDrop
	accept := nftables.ChainPolicyAccept
	chain := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority,
		policy *nftables.ChainPolicy) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: table, Type: kind, Hooknum: hook, Priority: prio, Policy: policy}
	}
	return []*nftables.Chain{
		// Before docker's, which are at the usual priority: the first to rewrite a
		// destination is the only one.
		chain(chainIntercept, nftables.ChainTypeNAT, nftables.ChainHookOutput,
			nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest-10), &accept),
		chain(chainDatagrams, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle, &accept),
		chain(chainInput, nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, &drop),
		chain(chainOutput, nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter, &accept),
		chain(chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, &drop),
	}
}

// interceptionRules lists the rules in order; own are the addresses that the
// workload may reach itself by without the proxy.
func interceptionRules(own []netip.Addr) []rule {
	own4, own6 := split(own)
	v4 := family{proto: unix.NFPROTO_IPV4, offset: 16, proxy: ProxyAddr4,
		local: append([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, prefixes(own4, WorkloadAddr4)...)}
	v6 := family{proto: unix.NFPROTO_IPV6, offset: 24, proxy: ProxyAddr6,
		local: append([]netip.Prefix{netip.MustParsePrefix("::1/128")}, prefixes(own6, WorkloadAddr6)...)}

	rules := []rule{{chainIntercept, join(unintercepted(expr.CmpOpEq), verdict(expr.VerdictAccept))}}
	for _, f := range []family{v4, v6} {
		rules = append(rules, f.intercept()...)
	}
	// Answers, and DNS, which has its server already.
	rules = append(rules,
		rule{chainDatagrams, join(reply(), verdict(expr.VerdictAccept))},
		rule{chainDatagrams, join(ctBits(expr.CtKeySTATUS, ctStatusDNAT), verdict(expr.VerdictAccept))},
	)
	for _, f := range []family{v4, v6} {
		rules = append(rules, f.acceptLocal(chainDatagrams)...)
		rules = append(rules, rule{chainDatagrams,
			join(f.match(), l4proto(unix.IPPROTO_UDP), f.tproxy(DatagramPort), mark(datagramMark), verdict(expr.VerdictAccept))})
	}
	engine := join(v4.match(), v4.daddr(netip.PrefixFrom(EngineResolver, 32)), unintercepted(expr.CmpOpNeq))
	rules = append(rules,
		rule{chainOutput, join(engine, l4proto(unix.IPPROTO_TCP), reject(unix.NFT_REJECT_TCP_RST, 0))},
		rule{chainOutput, join(engine, reject(unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH))},
		rule{chainOutput, join(notLoopback(expr.MetaKeyOIFNAME), verdict(expr.VerdictDrop))},
		rule{chainInput, join(notLoopback(expr.MetaKeyIIFNAME), verdict(expr.VerdictDrop))},
		rule{chainInput, join(ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED),
			verdict(expr.VerdictAccept))},
		rule{chainInput, join(ctBits(expr.CtKeySTATUS, ctStatusDNAT), verdict(expr.VerdictAccept))},
		// What comes in from outside, for whatever address the workload listens at.
		rule{chainInput, join(unintercepted(expr.CmpOpEq), l4proto(unix.IPPROTO_TCP), verdict(expr.VerdictAccept))},
		rule{chainInput, join(marked(datagramMark), l4proto(unix.IPPROTO_UDP), verdict(expr.VerdictAccept))},
	)
	for _, f := range []family{v4, v6} {
		rules = append(rules, f.acceptLocal(chainInput)...)
	}
	return append(rules,
		rule{chainInput, join(l4proto(unix.IPPROTO_TCP), reject(unix.NFT_REJECT_TCP_RST, 0))},
		rule{chainInput, reject(unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH)},
	)
}

// family is what differs between IPv4 and IPv6 in the rules.
type family struct {
	proto  byte // NFPROTO_*
	offset uint32
	proxy  netip.Addr
	local  []netip.Prefix
}

func (f family) intercept() []rule {
	var rules []rule
	// DNS comes first: a resolv.conf that points at loopback (a copy of the
	// host's, or no file at all) must reach the sandbox's server too.
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		rules = append(rules, rule{chainIntercept,
			join(f.match(), l4proto(proto), dport(53), f.dnat(DNSPort))})
	}
	rules = append(rules, f.acceptLocal(chainIntercept)...)
	return append(rules, rule{chainIntercept,
		join(f.match(), l4proto(unix.IPPROTO_TCP), f.dnat(TransparentPort))})
}

func (f family) acceptLocal(chain string) []rule {
	var rules []rule
	for _, p := range f.local {
		rules = append(rules, rule{chain, join(f.match(), f.daddr(p), verdict(expr.VerdictAccept))})
	}
	return rules
}

func (f family) match() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
	}
}

func (f family) daddr(p netip.Prefix) []expr.Any {
	size := p.Addr().BitLen() / 8
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func (f family) dnat(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: f.proxy.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.proto), RegAddrMin: 1, RegProtoMin: 2},
	}
}

// tproxy gives a datagram to the socket that is connected to its sender, or else
// to the one at the port of the proxy's address, where the family has one, or of
// any. The rule ends where there is neither, and where the former is none that
// ListenDatagrams or DatagramsBetween made.
func (f family) tproxy(port uint16) []expr.Any {
	to := &expr.TProxy{Family: f.proto, RegPort: 2}
	exprs := []expr.Any{&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)}, to}
	if f.proxy.IsValid() {
		to.RegAddr = 1
		exprs = append([]expr.Any{&expr.Immediate{Register: 1, Data: f.proxy.AsSlice()}}, exprs...)
	}
	return exprs
}

func mark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}
}

func marked(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(mark)},
	}
}

// reply matches packets that answer others (IP_CT_DIR_REPLY of
// linux/netfilter/nf_conntrack_tuple_common.h).
func reply() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

func l4proto(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// dport matches the destination port, which TCP and UDP keep in the same place.
func dport(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func notLoopback(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: name},
	}
}

func unintercepted(op expr.CmpOp) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.NativeEndian.PutUint32(uninterceptedMark)},
	}
}

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind}}
}

func reject(kind uint32, code uint8) []expr.Any {
	return []expr.Any{&expr.Reject{Type: kind, Code: code}}
}

func join(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func prefixes(addrs []netip.Addr, fallback netip.Addr) []netip.Prefix {
	if len(addrs) == 0 {
		addrs = []netip.Addr{fallback}
	}
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}
