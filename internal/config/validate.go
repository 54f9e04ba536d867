// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/ipaddr"
	"openshell.ai/openshell/internal/validname"
	"openshell.ai/openshell/internal/wildcard"
)

// The accepted ranges of the numeric limits. Below the lower bounds ordinary
// clients fail; above the upper ones a limit no longer bounds anything.
const (
	maxConnections = 1 << 20
	minHeaderBytes = 4 << 10
	maxHeaderBytes = 16 << 20
	maxKeepDays    = 3650
	minMemory      = Size(64 << 20)
	maxMemory      = Size(64 << 30)
)

// validate checks every field, and reports to d where it stands in the file.
func (c *Config) validate(d *decoder) {
	v := validator{d}
	v.check(c.Version == 1, "version", "must be 1, not %d", c.Version)
	v.program("runtime", c.Runtime)
	v.directory("state_dir", c.StateDir)
	v.directory("run_dir", c.RunDir)
	v.directory("policy_dir", c.PolicyDir)
	v.check(c.StateDir != c.RunDir, "run_dir", "must not be state_dir (%s): one outlives a reboot, the other must not",
		c.StateDir)
	if c.DefaultPolicy != "" {
		if err := validname.Check(c.DefaultPolicy); err != nil {
			v.fail("default_policy", "%q is not a policy's name: %v", c.DefaultPolicy, err)
		}
	}
	v.check(c.MaximumPolicy == "" || filepath.IsAbs(c.MaximumPolicy), "maximum_policy",
		"%q is not an absolute path", c.MaximumPolicy)
	v.permissive(&c.Permissive)
	for _, file := range c.TLS.ExtraRoots {
		v.check(filepath.IsAbs(file), "tls.extra_roots", "%q is not an absolute path", file)
	}
	for _, s := range c.Addresses.Trusted {
		if _, err := parseTrusted(s); err != nil {
			v.fail("addresses.trusted", "%v", err)
		}
	}
	for _, server := range c.DNS.Upstream {
		v.check(isServer(server), "dns.upstream", "%q is not an IP address, with or without a port", server)
	}
	v.upstreamProxy(&c.UpstreamProxy)
	v.between("limits.connections", c.Limits.Connections, 1, maxConnections)
	v.check(c.Limits.IdleTimeout > 0, "limits.idle_timeout", "must be positive, not %s", c.Limits.IdleTimeout)
	v.between("limits.header_bytes", c.Limits.HeaderBytes, minHeaderBytes, maxHeaderBytes)
	v.check(minMemory <= c.Supervisor.Memory && c.Supervisor.Memory <= maxMemory, "supervisor.memory",
		"must be from %s to %s, not %s", minMemory, maxMemory, c.Supervisor.Memory)
	v.between("audit.keep_days", c.Audit.KeepDays, 1, maxKeepDays)
	v.check(c.Metrics.Listen == "" || isListener(c.Metrics.Listen), "metrics.listen",
		"%q is not host:port", c.Metrics.Listen)
	v.unsupported(c)
}

// parseTrusted reads a range of addresses none of which is always blocked.
func parseTrusted(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, fmt.Errorf("%q is not a range of addresses, such as 10.20.0.0/16", s)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits behind its length: is %s meant?", s, p.Masked())
	case ipaddr.NeverIn(p):
		return p, fmt.Errorf("%s holds loopback, link-local, metadata or other addresses that are always blocked: narrow it", s)
	}
	return p, nil
}

type validator struct{ d *decoder }

func (v validator) fail(field, format string, args ...any) {
	v.d.fail(v.d.lines[field], field, format, args...)
}

func (v validator) check(ok bool, field, format string, args ...any) {
	if !ok {
		v.fail(field, format, args...)
	}
}

func (v validator) between(field string, value, low, high int) {
	v.check(low <= value && value <= high, field, "must be from %d to %d, not %d", low, high, value)
}

// directory accepts what can be compared and joined without surprises. The root
// is refused because openshell creates, and cleans up, below these.
func (v validator) directory(field, path string) {
	v.check(filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/", field,
		"%q is not an absolute path without '.', '..' or a trailing '/'", path)
}

func (v validator) program(field, path string) {
	v.check(path != "" && (filepath.IsAbs(path) || !strings.Contains(path, "/")), field,
		"%q is neither a name on PATH nor an absolute path", path)
}

func (v validator) permissive(p *Permissive) {
	v.check(p.DefaultTTL > 0, "permissive.default_ttl", "must be positive, not %s", p.DefaultTTL)
	v.check(p.MaxTTL > 0, "permissive.max_ttl", "must be positive, not %s", p.MaxTTL)
	v.check(p.DefaultTTL <= p.MaxTTL, "permissive.default_ttl", "%s is more than permissive.max_ttl (%s)", p.DefaultTTL,
		p.MaxTTL)
	onExpiry := []string{annotations.OnExpiryEnforce, annotations.OnExpiryStop}
	v.check(slices.Contains(onExpiry, p.OnExpiry), "permissive.on_expiry",
		"must be %s, not %q", strings.Join(onExpiry, " or "), p.OnExpiry)
}

func (v validator) upstreamProxy(p *UpstreamProxy) {
	if p.URL == "" {
		v.check(p.CredentialsFile == "" && p.CA == "" && len(p.NoProxy) == 0, "upstream_proxy",
			"there is no upstream_proxy.url, which the rest is for: set it, such as http://proxy.corp.example:3128")
		return
	}
	if err := checkProxyURL(p.URL); err != nil {
		v.fail("upstream_proxy.url", "%v", err)
	}
	v.check(p.CredentialsFile == "" || filepath.IsAbs(p.CredentialsFile), "upstream_proxy.credentials_file",
		"%q is not an absolute path", p.CredentialsFile)
	v.check(p.CA == "" || filepath.IsAbs(p.CA), "upstream_proxy.ca", "%q is not an absolute path", p.CA)
	v.check(p.CA == "" || !strings.HasPrefix(p.URL, "http:"), "upstream_proxy.ca",
		"an http:// proxy has no certificate of its own: leave it out, or use tls.extra_roots for those that it gives origins")
	for _, s := range p.NoProxy {
		if err := checkNoProxy(s); err != nil {
			v.fail("upstream_proxy.no_proxy", "%v", err)
		}
	}
}

// checkProxyURL never repeats the URL: somebody may have put a password into it.
func checkProxyURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("want http://host:port or https://host:port")
	case u.User != nil:
		return errors.New("must not have a user or password: put user:password into upstream_proxy.credentials_file")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("has more than http://host:port or https://host:port: leave out what follows the port")
	case u.Port() == "" || !isPort(u.Port()):
		return errors.New("want a port from 1 to 65535, such as http://proxy.corp.example:3128")
	}
	return nil
}

// checkNoProxy refuses what golang.org/x/net/http/httpproxy would ignore, or read as something else.
func checkNoProxy(s string) error {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || p.Addr().Is4In6():
			return fmt.Errorf("%q is not a range of addresses, such as 10.0.0.0/8", s)
		case p != p.Masked():
			return fmt.Errorf("%q has bits behind its length: is %s meant?", s, p.Masked())
		}
		return nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "1" // any will do
	}
	name := strings.TrimPrefix(strings.TrimPrefix(host, "*."), ".")
	if !isPort(port) || strings.Contains(name, "*") || wildcard.CheckHost(name) != nil {
		return fmt.Errorf("%q is neither a name nor an address, with or without a port, nor a range such as 10.0.0.0/8", s)
	}
	return nil
}

// unsupported refuses what would otherwise be ignored in silence: an
// administrator who sets one of these relies on it.
func (v validator) unsupported(c *Config) {
	refuse := func(asked bool, field, what, fix string) {
		if asked {
			v.d.fail(v.d.lines[field], "", "%s is not supported yet: %s", what, fix)
		}
	}
	refuse(!c.Identity.Required, "identity.required", "identity.required: false", "leave it out, or set it to true")
	refuse(c.Metrics.Listen != "", "metrics.listen", "metrics.listen", "leave it out")
}

func isServer(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	a, err := netip.ParseAddrPort(s)
	return err == nil && a.Port() != 0
}

func isListener(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
