package runtime

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/sandbox"
)

// hostResolvConf is the host's own; resolvUpstream is what systemd-resolved
// keeps for those who cannot reach its stub on loopback.
const (
	hostResolvConf = "/etc/resolv.conf"
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
	if p, err := t.host(hostResolvConf); err == nil {
		r = parseResolvConf(readText(p))
	}
	if !t.isMount(hostResolvConf) {
		r.Servers, r.Embedded = nil, false
	}
	if p, err := t.host(hostsFile); err == nil && t.isMount(hostsFile) {
		r.Hosts, r.HostsFile = readText(p), identityOf(p)
	}
	for _, p := range []string{hostResolvConf, resolvUpstream} {
		if len(r.Servers) > 0 {
			break
		}
		if p, err := filepath.EvalSymlinks(p); err == nil {
			r.Servers = parseResolvConf(readText(p)).Servers
		}
	}
	return r
}

// maxResolvConf bounds what is read of a resolv.conf, in bytes.
const maxResolvConf = 64 << 10

func readText(path string) string {
	data, err := sandbox.ReadImageFile(path, maxResolvConf)
	if err != nil {
		return ""
	}
	return string(data)
}

// identityOf returns a file's identity, none where it cannot be told.
func identityOf(path string) sandbox.FileID {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return sandbox.FileID{}
	}
	return sandbox.FileID{Dev: st.Dev, Ino: st.Ino}
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
