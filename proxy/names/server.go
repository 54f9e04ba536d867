// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"

	"openshell.ai/openshell/internal/crash"
)

// answerTTL is the time to live, in seconds, of synthetic answers. The address
// of a name never changes, but whether the name exists may.
const answerTTL = 30

// Limits of what a workload may have the server do at a time: a query may take an
// upstream socket for as long as the answer does not come.
const (
	maxQueries     = 1024 // further ones get SERVFAIL
	maxConnections = 256  // further ones wait
)

// Gate decides which names may be asked for upstream.
type Gate interface {
	// MayResolve reports whether the name may leave the sandbox.
	MayResolve(name string) bool
	// Refused is told of a name that may not, and was asked for.
	Refused(name string)
}

// Asker looks questions up outside; *Upstream is one.
type Asker interface {
	Ask(ctx context.Context, name string, qtype uint16) (*dns.Msg, error)
}

// Server answers the workload's DNS queries.
type Server struct {
	Table    *Table
	Upstream Asker
	Gate     Gate
	Search   []string // search domains of the container, lower case, no trailing dot
	IPv6     bool     // the sandbox has IPv6
	Local    bool     // somebody answers at LocalHost: it is nobody's outside

	// Elsewhere, where it is set, reports whether the site's proxy takes connections to a name, and may know it when the
	// DNS servers do not.
	Elsewhere func(name string) bool

	// Forwarded, where it is set, answers the questions that are none of the
	// workload's, see Upstream.Forwarded.
	Forwarded func(ctx context.Context, query *dns.Msg) *dns.Msg

	queries atomic.Int64 // being answered
}

// LocalHost is the name by which a workload asks about its own sandbox.
const LocalHost = "policy.local"

// Serve answers on the socket and listener of each pair until ctx ends, and waits for the answers under way.
func (s *Server) Serve(ctx context.Context, packets []*net.UDPConn, listeners []*net.TCPListener) {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		crash.Contain("a DNS query", func() { s.serve(ctx, w, query) })
	})
	var servers []*dns.Server
	limited := make([]net.Listener, len(listeners))
	for _, p := range packets {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: handler})
	}
	for i, l := range listeners {
		limited[i] = netutil.LimitListener(l, maxConnections)
		servers = append(servers, &dns.Server{Listener: limited[i], Handler: handler, MaxTCPQueries: 128})
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	for _, srv := range servers {
		// The only errors are those of a socket closed at shutdown.
		serving.Go(func() { _ = srv.ActivateAndServe() })
	}
	<-ctx.Done()
	for _, srv := range servers {
		serving.Go(func() { _ = srv.Shutdown() }) // clients that are connected and silent, too
	}
	for _, p := range packets {
		p.Close()
	}
	for _, l := range limited {
		l.Close()
	}
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, query *dns.Msg) {
	ctx, cancel := context.WithTimeout(ctx, 2*queryTimeout)
	defer cancel()
	answer := s.answer(ctx, query)
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		answer.Truncate(udpSize(query))
	}
	_ = w.WriteMsg(answer) // The workload may be gone.
}

// answer is Answer for whoever asks, as long as there are not too many.
func (s *Server) answer(ctx context.Context, query *dns.Msg) *dns.Msg {
	defer s.queries.Add(-1)
	if s.queries.Add(1) > maxQueries {
		return new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	}
	if s.Forwarded != nil {
		if answer := s.Forwarded(ctx, query); answer != nil {
			return answer
		}
	}
	return s.Answer(ctx, query)
}

func udpSize(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return int(max(opt.UDPSize(), dns.MinMsgSize))
	}
	return dns.MinMsgSize
}

// Answer returns the reply to one query.
func (s *Server) Answer(ctx context.Context, query *dns.Msg) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetReply(query)
	reply.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(4096, false)
		if opt.Version() != 0 {
			return badVersion(reply, query) // RFC 6891 section 6.1.3
		}
	}
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 {
		return reply.SetRcode(query, dns.RcodeNotImplemented)
	}
	q := query.Question[0]
	if q.Qclass != dns.ClassINET {
		return reply.SetRcode(query, dns.RcodeRefused)
	}
	name := strings.TrimSuffix(dns.CanonicalName(q.Name), ".")
	switch {
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		s.localhost(reply, q)
	case s.Local && name == LocalHost:
		if q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA {
			s.synthesise(reply, q, name)
		}
	case q.Qtype == dns.TypePTR && s.pointer(reply, q):
	case q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA:
		s.address(ctx, reply, q, name)
	default:
		s.other(ctx, reply, q, name)
	}
	return reply
}

// localhost answers as RFC 6761 section 6.3 asks of resolvers.
func (s *Server) localhost(reply *dns.Msg, q dns.Question) {
	switch q.Qtype {
	case dns.TypeA:
		add(reply, q, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	case dns.TypeAAAA:
		if s.IPv6 {
			add(reply, q, netip.IPv6Loopback())
		}
	}
}

// pointer answers for a synthetic address with the name it stands for.
func (s *Server) pointer(reply *dns.Msg, q dns.Question) bool {
	a, ok := parseReverse(q.Name)
	if !ok || !IsSynthetic(a) {
		return false
	}
	name, ok := s.Table.Name(a)
	if !ok {
		reply.Rcode = dns.RcodeNameError
		return true
	}
	reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(q), Ptr: dns.Fqdn(name)})
	return true
}

// address answers with the name's synthetic address. A name that may leave is
// asked for first, so that one that does not exist stays so. One that may not
// gets an address all the same, so that the connection can be refused with a
// reason; except where a search domain made it, or makes one of it that may leave:
// then the resolver is to go on to the name that the workload meant.
func (s *Server) address(ctx context.Context, reply *dns.Msg, q dns.Question, name string) {
	if !s.Gate.MayResolve(name) {
		meant, searched := s.searched(name)
		if !s.leads(ctx, meant) && !(searched && s.Gate.MayResolve(meant)) {
			s.Gate.Refused(name)
		}
		if searched || s.leads(ctx, name) {
			reply.Rcode = dns.RcodeNameError
			return
		}
		s.synthesise(reply, q, name)
		return
	}
	real, err := s.Upstream.Ask(ctx, name, q.Qtype)
	switch {
	case err == nil && len(addresses(real)) > 0,
		(err != nil || real.Rcode == dns.RcodeNameError) && s.isElsewhere(ctx, name):
		s.synthesise(reply, q, name)
	case err != nil:
		reply.Rcode = dns.RcodeServerFailure
	default:
		negate(reply, real)
	}
}

// isElsewhere reports whether a name that the DNS servers do not know is the site's proxy's to resolve. What a search
// domain has made, or makes a name of, is not: the resolver is to go on.
func (s *Server) isElsewhere(ctx context.Context, name string) bool {
	if s.Elsewhere == nil || !strings.Contains(name, ".") || !s.Elsewhere(name) {
		return false
	}
	_, searched := s.searched(name)
	return !searched && !s.leads(ctx, name)
}

// negate copies what makes an answer negative: the code, and the start of
// authority by which a resolver knows how long it holds (RFC 2308 section 5).
func negate(reply, real *dns.Msg) {
	reply.Rcode = real.Rcode
	for _, rr := range real.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			reply.Ns = append(reply.Ns, soa)
		}
	}
}

func badVersion(reply, query *dns.Msg) *dns.Msg {
	reply.SetRcode(query, dns.RcodeBadVers)
	reply.IsEdns0().SetExtendedRcode(dns.RcodeBadVers)
	return reply
}

func (s *Server) synthesise(reply *dns.Msg, q dns.Question, name string) {
	v4, v6, ok := s.Table.Addresses(name)
	switch {
	case !ok:
		reply.Rcode = dns.RcodeServerFailure
	case q.Qtype == dns.TypeA:
		add(reply, q, v4)
	case s.IPv6:
		add(reply, q, v6)
	}
}

// other answers for types that carry no address. Service bindings (RFC 9460)
// do carry them, and keys for encrypted ClientHellos besides; no answer makes
// clients fall back to A and AAAA.
func (s *Server) other(ctx context.Context, reply *dns.Msg, q dns.Question, name string) {
	if q.Qtype == dns.TypeHTTPS || q.Qtype == dns.TypeSVCB || q.Qtype == dns.TypeANY {
		return
	}
	if !s.Gate.MayResolve(name) {
		s.Gate.Refused(name)
		reply.Rcode = dns.RcodeNameError
		return
	}
	real, err := s.Upstream.Ask(ctx, name, q.Qtype)
	if err != nil {
		reply.Rcode = dns.RcodeServerFailure
		return
	}
	// The additional section would carry real addresses of the targets.
	reply.Answer = real.Answer
	if len(reply.Answer) == 0 {
		negate(reply, real)
	}
}

// searched returns the name that the workload meant where a search domain has made this one of it, and else the
// name itself.
func (s *Server) searched(name string) (meant string, ok bool) {
	for _, domain := range s.Search {
		if meant, ok := strings.CutSuffix(name, "."+domain); ok {
			return meant, true
		}
	}
	return name, false
}

// leads reports whether a search domain makes a name of this one that may leave, and has an address.
func (s *Server) leads(ctx context.Context, name string) bool {
	return slices.ContainsFunc(s.Search, func(domain string) bool {
		whole := name + "." + domain
		return s.Gate.MayResolve(whole) && (s.hasAddress(ctx, whole, dns.TypeA) || s.hasAddress(ctx, whole, dns.TypeAAAA))
	})
}

func (s *Server) hasAddress(ctx context.Context, name string, qtype uint16) bool {
	real, err := s.Upstream.Ask(ctx, name, qtype)
	return err == nil && len(addresses(real)) > 0
}

func add(reply *dns.Msg, q dns.Question, a netip.Addr) {
	if a.Is4() {
		reply.Answer = append(reply.Answer, &dns.A{Hdr: header(q), A: a.AsSlice()})
	} else {
		reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: header(q), AAAA: a.AsSlice()})
	}
}

func header(q dns.Question) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: uint32(answerTTL)}
}

// parseReverse reads an address from a name under in-addr.arpa or ip6.arpa.
func parseReverse(name string) (netip.Addr, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	labels := strings.Split(rest, ".")
	if len(labels) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(labels)
	var b strings.Builder
	for i, l := range labels {
		if i > 0 && i%4 == 0 {
			b.WriteByte(':')
		}
		b.WriteString(l)
	}
	a, err := netip.ParseAddr(b.String())
	return a, err == nil
}
