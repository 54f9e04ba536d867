// SPDX-License-Identifier: Apache-2.0

package names

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// maxHosts bounds the names of hosts files; Docker's and Podman's have one for
// each --add-host and a few besides.
const maxHosts = 4096

// Hosts are the names in the hosts(5) files of a sandbox's containers, as they were
// before a workload could write to them. The nil value has no names. It is safe for
// concurrent use.
type Hosts struct {
	mu    sync.RWMutex
	addrs map[string][]netip.Addr
	names map[netip.Addr][]string
}

// ParseHosts returns what the text of a hosts file says.
func ParseHosts(text string) *Hosts {
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
	h.Add(text)
	return h
}

// Add takes in the text of another container's hosts file, and returns the names
// that it gives other addresses than an earlier file does: for those the earlier
// holds. Lines that cannot be read, names that no DNS query could have, and loopback
// addresses, which never leave the container, are left out.
func (h *Hosts) Add(text string) (contradicted []string) {
	order, addrs := parseHosts(text)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range order {
		known := h.addrs[name]
		switch {
		case len(known) > 0 && !sameAddrs(known, addrs[name]):
			contradicted = append(contradicted, name)
		case len(known) == 0 && len(h.addrs) < maxHosts:
			h.addrs[name] = addrs[name]
			for _, a := range addrs[name] {
				h.names[a] = append(h.names[a], name)
			}
		}
	}
	return contradicted
}

// parseHosts returns the names of a hosts file, at most maxHosts, in its order, with
// the addresses of each.
func parseHosts(text string) (order []string, addrs map[string][]netip.Addr) {
	addrs = map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.IsLoopback() || a.IsUnspecified() {
			continue
		}
		a = a.Unmap().WithZone("")
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if _, ok := dns.IsDomainName(name); !ok || slices.Contains(addrs[name], a) {
				continue
			}
			if len(addrs[name]) == 0 {
				if len(order) == maxHosts {
					continue
				}
				order = append(order, name)
			}
			addrs[name] = append(addrs[name], a)
		}
	}
	return order, addrs
}

func sameAddrs(a, b []netip.Addr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x) })
}

// Addresses returns a name's addresses, in the file's order. The name is in
// lower case and without a dot at its end.
func (h *Hosts) Addresses(name string) []netip.Addr {
	if h == nil {
		return nil
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Clip(h.addrs[name])
}

// Names returns the names of an address, in the files' order.
func (h *Hosts) Names(a netip.Addr) []string {
	if h == nil {
		return nil
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.Clip(h.names[a.Unmap().WithZone("")])
}

// answer returns the reply to a question for an address of a name in the file,
// or nil where the file does not settle it.
func (h *Hosts) answer(q question) *dns.Msg {
	addrs := h.Addresses(strings.TrimSuffix(q.name, "."))
	if len(addrs) == 0 || q.qtype != dns.TypeA && q.qtype != dns.TypeAAAA {
		return nil
	}
	msg := new(dns.Msg)
	msg.SetQuestion(q.name, q.qtype)
	msg.Response = true
	hdr := dns.RR_Header{Name: q.name, Rrtype: q.qtype, Class: dns.ClassINET, Ttl: answerTTL}
	for _, a := range addrs {
		switch {
		case q.qtype == dns.TypeA && a.Is4():
			msg.Answer = append(msg.Answer, &dns.A{Hdr: hdr, A: net.IP(a.AsSlice())})
		case q.qtype == dns.TypeAAAA && a.Is6():
			msg.Answer = append(msg.Answer, &dns.AAAA{Hdr: hdr, AAAA: net.IP(a.AsSlice())})
		}
	}
	return msg
}
