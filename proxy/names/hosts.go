package names

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// maxHosts bounds the names of a hosts file; Docker's and Podman's have one for
// each --add-host and a few besides.
const maxHosts = 4096

// Hosts is a container's hosts(5), as it was before the workload could write to
// it. The nil value has no names.
type Hosts struct {
	addrs map[string][]netip.Addr
	names map[netip.Addr][]string
}

// ParseHosts reads the text of a hosts file. Lines that cannot be read, names
// that no DNS query could have, and loopback addresses, which never leave the
// container, are left out.
func ParseHosts(text string) *Hosts {
	h := &Hosts{addrs: map[string][]netip.Addr{}, names: map[netip.Addr][]string{}}
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
			h.add(strings.ToLower(strings.TrimSuffix(name, ".")), a)
		}
	}
	return h
}

func (h *Hosts) add(name string, a netip.Addr) {
	if _, ok := dns.IsDomainName(name); !ok || len(h.addrs) >= maxHosts {
		return
	}
	h.addrs[name] = append(h.addrs[name], a)
	h.names[a] = append(h.names[a], name)
}

// Addresses returns a name's addresses, in the file's order. The name is in
// lower case and without a dot at its end.
func (h *Hosts) Addresses(name string) []netip.Addr {
	if h == nil {
		return nil
	}
	return h.addrs[name]
}

// Names returns the names of an address, in the file's order.
func (h *Hosts) Names(a netip.Addr) []string {
	if h == nil {
		return nil
	}
	return h.names[a.Unmap().WithZone("")]
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
