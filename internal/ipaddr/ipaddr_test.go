// SPDX-License-Identifier: Apache-2.0

package ipaddr

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// of says what an address is: "public", "internal", or why it is never dialled.
func of(text string) string {
	a := Plain(netip.MustParseAddr(text))
	switch what := Never(a); {
	case what != "":
		return what
	case Public(a):
		return "public"
	}
	return "internal"
}

func TestAddresses(t *testing.T) {
	for want, addresses := range map[string][]string{
		"unspecified": {"0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "64:ff9b::", "::ffff:0:0:0"},
		"loopback": {"127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::",
			"::ffff:0:127.0.0.1", "64:ff9b:1::127.0.0.1", "2001:0:7f00:1::", "2001::80ff:fffe", "2606:4700::5efe:127.0.0.1"},
		"link-local": {"169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe",
			"2002:a9fe:a9fe::1", "::ffff:0:169.254.169.254", "64:ff9b:1::a9fe:a9fe",
			"64:ff9b:1:a9fe:a9:fe00::",             // /48
			"64:ff9b:1:1a9:fe:a9fe::",              // /56
			"64:ff9b:1:1:a9:fea9:fe00:0",           // /64
			"2001:0:4136:e378:8000:63bf:5601:5601", // Teredo
			"2606:4700::200:5efe:169.254.169.254", "fd00::5efe:169.254.169.254"},
		"multicast":      {"224.0.0.1", "239.1.1.1", "ff02::1", "64:ff9b::224.0.0.1", "::ffff:0:239.0.0.1"},
		"reserved":       {"240.0.0.1", "255.255.255.255", "::ffff:255.255.255.255", "2002:ffff:ffff::"},
		"cloud metadata": {"100.100.100.200", "fd00:ec2::254", "64:ff9b::100.100.100.200", "::ffff:0:100.100.100.200", "64:ff9b:1::100.100.100.200"},
		"internal": {"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170",
			"192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "192.88.99.1", "192.88.99.2",
			"fc00::1", "fd12::1", "fec0::1", "100::1", "100:0:0:1::1", "2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "2001:1::1", "2001:1::3", "2001:1::4",
			"3fff::1", "5f00::1", "4000::1", "1::1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8",
			"64:ff9b:2::8.8.8.8", "2002:a00:1::", "::10.0.0.1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:192.168.1.1"},
		"public": {"8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "198.20.0.1", "223.255.255.255",
			"192.31.196.1", "192.52.193.1", "192.175.48.1", "192.0.1.1", "2606:4700::1111", "2001:3::1",
			"2001:4:112::1", "2001:20::1", "2001:30::1", "2001:200::1", "2620:4f:8000::1", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:1.1.1.1",
			"::ffff:0:1.1.1.1", "2606:4700::5efe:8.8.8.8"},
	} {
		for _, text := range addresses {
			if got := of(text); got != want {
				t.Errorf("%s: %s, want %s", text, got, want)
			}
		}
	}
	if Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestPrefixes(t *testing.T) {
	for text, public := range map[string]bool{
		"8.8.8.0/24": true, "8.8.8.8/32": true, "0.0.0.0/0": false, "10.1.0.0/16": false, "192.0.0.0/16": false, "224.0.0.0/8": false,
		"2606:4700::/32": true, "::/0": false, "2000::/3": false, "2001::/16": false, "2002:808::/32": false, "64:ff9b::/96": false, "4000::/8": false,
		"10.0.0.1/32": false,
	} {
		if got := PublicPrefix(netip.MustParsePrefix(text)); got != public {
			t.Errorf("%s: public is %v", text, got)
		}
	}
	for text, never := range map[string]bool{
		"10.0.0.0/8": false, "100.100.100.200/32": true, "100.100.100.0/24": false, "127.0.0.1/32": true, "0.0.0.0/0": true, "fe80::/64": true, "fd00::/8": false,
	} {
		if got := NeverIn(netip.MustParsePrefix(text)); got != never {
			t.Errorf("%s: never is %v", text, got)
		}
	}
}

// special.go is what iana.csv makes.
func TestGenerated(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"generate.go", "iana.csv"} {
		data, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "generate.go")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := os.ReadFile(filepath.Join(dir, "special.go"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile("special.go"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("special.go is not that of iana.csv: run go generate ./internal/ipaddr (%v)", err)
	}
}

func BenchmarkAddress(b *testing.B) {
	for name, text := range map[string]string{"IPv4": "140.82.112.6", "IPv6": "2606:4700::1111"} {
		a := netip.MustParseAddr(text)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if Never(a) != "" || !Public(a) {
					b.Fatal(text)
				}
			}
		})
	}
}
