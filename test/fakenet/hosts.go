// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"maps"
	"net/netip"
	"slices"
)

// Names with an origin behind them, all on public addresses (IPv4 and IPv6).
const (
	WeatherHost   = "api.weather.example" // HTTP API: 443, 80
	FrontedHost   = "fronted.example"     // another site on WeatherHost's addresses and certificate
	GitHubHost    = "api.github.example"  // HTTP API: 443, 80
	WebHost       = "web.example"         // plain HTTP, HTTP/2 by prior knowledge too: 80, 8080
	StreamHost    = "stream.example"      // HTTP API, for long answers: 443, 80
	CDNHost       = "cdn.example"         // HTTP API, it and every name below it: 443, 80
	GitHost       = "git.example"         // git smart HTTP, /project.git: 443
	PyPIHost      = "pypi.example"        // Python package index, /simple/: 443
	NPMHost       = "npm.example"         // npm registry: 443
	GoHost        = "goproxy.example"     // Go module proxy: 443
	DebianHost    = "deb.example"         // Debian archive: 443
	EchoHost      = "echo.example"        // TCP and UDP echo: 7, 443/udp
	MailHost      = "mail.example"        // SMTP, speaks first: 25, 2525
	TLSHost       = "tls.example"         // TLS, but not HTTP; echo: 8883
	ExpiredHost   = "expired.example"     // HTTPS, certificate expired: 443
	UntrustedHost = "untrusted.example"   // HTTPS, unknown authority: 443
	MisnamedHost  = "misnamed.example"    // HTTPS, certificate for another name: 443
	BlackholeHost = "blackhole.example"   // packets to it vanish
	RefusedHost   = "refused.example"     // nothing listens
)

// Names that a server-side request forgery guard must stop. Behind every
// address there is an HTTP origin (80, 443 and 6443) that outer really reaches.
const (
	PrivateHost    = "private.example"          // 10.45.0.10, fd45:a::10
	MetadataHost   = "metadata.example"         // 169.254.169.254, fd00:ec2::254
	GoogleMetadata = "metadata.google.internal" // 169.254.169.254
	LoopbackHost   = "loopback.example"         // 127.0.0.1, ::1 (80 in outer)
	MixedHost      = "mixed.example"            // one public address and one private
	RebindHost     = "rebind.example"           // public the first time it is asked, then private
	MappedHost     = "mapped.example"           // ::ffff:10.45.0.10
	NAT64Host      = "nat64.example"            // 64:ff9b::169.254.169.254
	SixToFourHost  = "sixtofour.example"        // 6to4 of 10.45.0.10
	BenchmarkHost  = "benchmark.example"        // 198.18.45.10
	RangesHost     = "ranges.example"           // N.ranges.example: the Nth of [BlockedAddrs]
	CNAMEPrivate   = "cname-private.example"    // alias of PrivateHost
)

// Names that exist for what the name server does with them.
const (
	CNAMEHost    = "cname.example"    // alias of WeatherHost
	IPv4OnlyHost = "ipv4only.example" // WeatherHost's, A only
	IPv6OnlyHost = "ipv6only.example" // WeatherHost's, AAAA only
	TextHost     = "text.example"     // TXT only: A and AAAA are NODATA
	ServiceName  = "_http._tcp." + TextHost
	BigHost      = "big.example"      // too many addresses for UDP: truncated, then TCP
	ServfailHost = "servfail.example" // SERVFAIL
	SilentHost   = "silent.example"   // never answered
)

// bigAnswers is how many addresses [BigHost] has: more than the 1232 bytes of
// DNS flag day 2020 hold.
const bigAnswers = 100

var (
	dns4 = public(53)[0]
	dns6 = public(53)[1]

	privateAddrs  = addrs("10.45.0.10", "fd45:a::10")
	metadataAddrs = addrs("169.254.169.254", "fd00:ec2::254")
)

// hosts are the names with fixed addresses of their own, which is also where the
// origins listen.
var hosts = map[string][]netip.Addr{
	WeatherHost:   public(10),
	FrontedHost:   public(10),
	IPv4OnlyHost:  public(10)[:1],
	IPv6OnlyHost:  public(10)[1:],
	GitHubHost:    public(11),
	WebHost:       public(12),
	StreamHost:    public(13),
	CDNHost:       public(14),
	GitHost:       public(15),
	PyPIHost:      public(16),
	NPMHost:       public(17),
	GoHost:        public(26),
	DebianHost:    public(27),
	EchoHost:      public(18),
	MailHost:      public(19),
	TLSHost:       public(20),
	ExpiredHost:   public(21),
	UntrustedHost: public(22),
	MisnamedHost:  public(23),
	BlackholeHost: public(24),
	RefusedHost:   public(25),

	PrivateHost:    privateAddrs,
	MetadataHost:   metadataAddrs,
	GoogleMetadata: metadataAddrs[:1],
	LoopbackHost:   addrs("127.0.0.1", "::1"),
	MixedHost:      {public(10)[0], privateAddrs[0]},
	MappedHost:     addrs("::ffff:10.45.0.10"),
	NAT64Host:      addrs("64:ff9b::169.254.169.254"),
	SixToFourHost:  addrs("2002:a2d:a::1"),
	BenchmarkHost:  addrs("198.18.45.10"),
}

var aliases = map[string]string{
	CNAMEHost:    WeatherHost,
	CNAMEPrivate: PrivateHost,
}

// blocked has one address of every range that no workload may reach by a rule
// for a public name: reserved, private, link-local, shared, metadata and
// translated ones.
var blocked = addrs(
	"0.45.0.10",
	"10.45.0.10",
	"100.64.45.10",
	"100.100.100.200",
	"169.254.169.254",
	"169.254.170.2",
	"172.16.45.10",
	"192.0.0.10",
	"192.0.2.10",
	"192.168.45.10",
	"198.18.45.10",
	"198.51.100.10",
	"203.0.113.10",
	"240.45.0.10",
	"::10.45.0.10",
	"64:ff9b::10.45.0.10",
	"64:ff9b::169.254.169.254",
	"64:ff9b:1::169.254.169.254",
	"::ffff:0:10.45.0.10",
	"::ffff:0:169.254.169.254",
	"2001:0:4136:e378:8000:63bf:5601:5601", // Teredo of 169.254.169.254
	"2002:a2d:a::1",
	"3fff:45::10",
	"5f00:45::10",
	"fd45:a::10",
	"fd00:ec2::254",
)

// BlockedAddrs returns the addresses of ranges that a sandbox must never reach
// through a public name. Each has a reachable origin on ports 80, 443 and 6443;
// the Nth (from 0) is also what N.ranges.example resolves to.
func BlockedAddrs() []netip.Addr { return slices.Clone(blocked) }

// Addrs returns the fixed addresses of a name, IPv4 first; none for a name that
// has no fixed ones.
func Addrs(host string) []netip.Addr {
	if target, ok := aliases[host]; ok {
		host = target
	}
	return slices.Clone(hosts[host])
}

// Hosts returns every name with fixed addresses, sorted.
func Hosts() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(hosts)), maps.Keys(aliases))
	slices.Sort(names)
	return names
}

// public returns the nth origin's addresses. Both prefixes are ordinary global
// unicast; whose they are outside does not matter in here.
func public(n byte) []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{45, 64, 45, n}),
		netip.AddrFrom16([16]byte{0x2a, 0x0e, 0xb1, 0x07, 0x00, 0x45, 15: n}),
	}
}

func addrs(literals ...string) []netip.Addr {
	out := make([]netip.Addr, len(literals))
	for i, literal := range literals {
		out[i] = netip.MustParseAddr(literal)
	}
	return out
}
