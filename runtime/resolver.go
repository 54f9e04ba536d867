// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/netns"
)

// resolvConf is the container's or the host's own; resolvUpstream is what
// systemd-resolved keeps for those who cannot reach its stub on loopback.
const (
	resolvConf     = "/etc/resolv.conf"
	resolvUpstream = "/run/systemd/resolve/resolv.conf"
	hostsFile      = "/etc/hosts"
)

// resolverOf reads the container's resolv.conf and hosts file. Only those that
// the engine mounts name servers and hosts: an image's may name its author's, who
// could then answer for the hosts that a policy allows. Servers on loopback are the engine's or
// host's own business and cannot be reached by that address from elsewhere.
// Without others, the host's are asked.
func resolverOf(t tree) sandbox.Resolver {
	var r sandbox.Resolver
	if engine, ok := t.engineFile(resolvConf); ok {
		r = parseResolvConf(readText(engine.root, "/"))
	} else if at, rel, err := t.find(resolvConf); err == nil {
		r.Search = parseResolvConf(readText(at.root, rel)).Search
	}
	if engine, ok := t.engineFile(hostsFile); ok && engine.root != nil {
		r.Hosts = readText(engine.root, "/")
		file, _ := engine.root.Lstat("/")
		r.HostsFile = file.ID
	}
	for _, p := range []string{resolvConf, resolvUpstream} {
		if len(r.Servers) > 0 {
			break
		}
		if host, err := rootfs.At(p).Open(); err == nil {
			r.Servers = parseResolvConf(readText(host, "/")).Servers
			host.Close()
		}
	}
	return r
}

// maxResolvConf bounds what is read of a resolv.conf or hosts file, in bytes.
const maxResolvConf = 64 << 10

// readText reads what may be an image's file, and so be anything.
func readText(r *rootfs.Root, path string) string {
	if r == nil {
		return ""
	}
	data, _, err := r.ReadFile(path, maxResolvConf)
	if err != nil {
		return ""
	}
	return string(data)
}

// parseResolvConf reads resolv.conf(5).
func parseResolvConf(text string) sandbox.Resolver {
	c, err := dns.ClientConfigFromReader(strings.NewReader(text))
	if err != nil {
		return sandbox.Resolver{}
	}
	var r sandbox.Resolver
	for _, s := range c.Servers {
		a, err := netip.ParseAddr(s)
		r.Embedded = r.Embedded || a == netns.EngineResolver
		if err == nil && !a.IsLoopback() && !a.IsUnspecified() {
			r.Servers = append(r.Servers, s)
		}
	}
	for _, domain := range c.Search {
		if domain = strings.ToLower(strings.Trim(domain, ".")); domain != "" {
			r.Search = append(r.Search, domain)
		}
	}
	return r
}
