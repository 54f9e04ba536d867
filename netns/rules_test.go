// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// withEngineResolver does what dockerd does in a container's namespace: it
// answers on a port of 127.0.0.11 and has port 53 lead there.
func withEngineResolver(t *testing.T, n *Namespace) (port uint16) {
	t.Helper()
	c, err := n.ListenPacket(netip.AddrPortFrom(EngineResolver, 0))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	go answer(c, "engine")
	port = c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	conn, err := nftables.New(nftables.WithNetNSFd(n.Fd()))
	must(t, err)
	table := conn.AddTable(&nftables.Table{Name: "docker-dns", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{Name: "dns-dnat", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	f := family{proto: unix.NFPROTO_IPV4, offset: 16}
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: join(f.daddr(netip.PrefixFrom(EngineResolver, 32)),
		l4proto(unix.IPPROTO_UDP), dport(53), []expr.Any{
			&expr.Immediate{Register: 1, Data: EngineResolver.AsSlice()},
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
		})})
	must(t, conn.Flush())
	return port
}

// answer says who it is to every packet.
func answer(c *net.UDPConn, name string) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteToUDPAddrPort([]byte(name), from)
	}
}

func TestEngineResolverIsOnlyForTheSupervisor(t *testing.T) {
	n, err := New()
	must(t, err)
	defer n.Close()
	must(t, Loopback(n))
	port := withEngineResolver(t, n) // before the namespace is sealed
	_, err = Seal(n, nil)
	must(t, err)
	must(t, Intercept(n, nil))
	server, err := n.ListenPacket(netip.AddrPortFrom(ProxyAddr4, DNSPort))
	must(t, err)
	defer server.Close()
	go answer(server, "sandbox")

	resolver := netip.AddrPortFrom(EngineResolver, 53)
	for name, tt := range map[string]struct {
		trusted bool
		addr    netip.AddrPort
		want    string
	}{
		"workload":              {false, resolver, "sandbox"},
		"workload, behind port": {false, netip.AddrPortFrom(EngineResolver, port), ""},
		"supervisor":            {true, resolver, "engine"},
	} {
		dial := n.Dial
		if tt.trusted {
			dial = n.DialUnintercepted
		}
		c, err := dial(t.Context(), "udp", tt.addr)
		must(t, err)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = c.Write([]byte("q"))
		buf := make([]byte, 64)
		var k int
		if err == nil {
			k, err = c.Read(buf)
		}
		if got := string(buf[:k]); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: answered by %q, %v; want %q", name, got, err, tt.want)
		}
		if late, ok := err.(net.Error); ok && late.Timeout() {
			t.Errorf("%s: not refused at once", name)
		}
	}
}
