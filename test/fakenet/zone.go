// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// ttl of every answer, in seconds; names that change their mind have 0.
const ttl = 60

// zone answers for the names in hosts.go. Every other name does not exist.
type zone struct {
	mu    sync.Mutex
	asked map[uint16]int // how often RebindHost was asked, by type
}

// answer is what the zone says to one question.
type answer struct {
	rcode   int
	records []dns.RR
	silent  bool // send nothing
}

func newZone() *zone { return &zone{asked: map[uint16]int{}} }

func (z *zone) reset() {
	z.mu.Lock()
	defer z.mu.Unlock()
	clear(z.asked)
}

func (z *zone) answer(q dns.Question) answer {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	switch name {
	case ServfailHost:
		return answer{rcode: dns.RcodeServerFailure}
	case SilentHost:
		return answer{silent: true}
	case RebindHost:
		return answer{records: addressRecords(q, 0, z.rebind(q.Qtype))}
	case BigHost:
		return answer{records: addressRecords(q, ttl, bigAddrs())}
	case TextHost:
		return answer{records: textRecords(q)}
	case ServiceName:
		return answer{records: serviceRecords(q)}
	}
	if target, ok := aliases[name]; ok {
		alias := &dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME, ttl), Target: target + "."}
		q.Name = alias.Target
		return answer{records: append([]dns.RR{alias}, addressRecords(q, ttl, hosts[target])...)}
	}
	if addrs, ok := wildcard(name); ok {
		return answer{records: addressRecords(q, ttl, addrs)}
	}
	if addrs, ok := hosts[name]; ok {
		return answer{records: addressRecords(q, ttl, addrs)}
	}
	if isParent(name) {
		return answer{}
	}
	return answer{rcode: dns.RcodeNameError}
}

// rebind gives the first question of each type a public address and the later
// ones a private address.
func (z *zone) rebind(qtype uint16) []netip.Addr {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked[qtype]++
	if z.asked[qtype] == 1 {
		return hosts[WeatherHost]
	}
	return privateAddrs
}

// wildcard answers for the names below CDNHost and for N.ranges.example.
func wildcard(name string) ([]netip.Addr, bool) {
	if strings.HasSuffix(name, "."+CDNHost) {
		return hosts[CDNHost], true
	}
	label, ok := strings.CutSuffix(name, "."+RangesHost)
	if !ok {
		return nil, false
	}
	n, err := strconv.Atoi(label)
	if err != nil || n < 0 || n >= len(blocked) {
		return nil, false
	}
	return blocked[n : n+1], true
}

// isParent reports whether a name exists only because names below it do (RFC 8020:
// it has no records, but is no NXDOMAIN).
func isParent(name string) bool {
	for host := range hosts {
		if strings.HasSuffix(host, "."+name) {
			return true
		}
	}
	return name == "" || name == RangesHost
}

func bigAddrs() []netip.Addr {
	var out []netip.Addr
	for i := range byte(bigAnswers) {
		out = append(out, public(100+i)...)
	}
	return out
}

// addressRecords keeps the addresses of the family that was asked for.
func addressRecords(q dns.Question, ttl uint32, addrs []netip.Addr) []dns.RR {
	var records []dns.RR
	for _, addr := range addrs {
		switch {
		case q.Qtype == dns.TypeA && addr.Is4():
			records = append(records, &dns.A{Hdr: header(q.Name, dns.TypeA, ttl), A: addr.AsSlice()})
		case q.Qtype == dns.TypeAAAA && !addr.Is4():
			records = append(records, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA, ttl), AAAA: net.IP(addr.AsSlice())})
		}
	}
	return records
}

func textRecords(q dns.Question) []dns.RR {
	if q.Qtype != dns.TypeTXT {
		return nil
	}
	return []dns.RR{&dns.TXT{Hdr: header(q.Name, dns.TypeTXT, ttl), Txt: []string{"hello from fakenet"}}}
}

// serviceRecords tell that ServiceName is served by GitHubHost.
func serviceRecords(q dns.Question) []dns.RR {
	if q.Qtype != dns.TypeSRV {
		return nil
	}
	return []dns.RR{&dns.SRV{Hdr: header(q.Name, dns.TypeSRV, ttl), Port: 80, Target: GitHubHost + "."}}
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
