// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// Diff says for people, one line for each, what one policy allows and the
// other does not: "+ /usr/bin/curl GET https://api.github.com:443/repos/*".
// Rules that are only named or grouped differently do not show. Additions come
// last; the order is stable.
func Diff(before, after *Policy) []string {
	old, now := statements(before), statements(after)
	var lines []string
	for _, s := range slices.Sorted(maps.Keys(old)) {
		if !now[s] {
			lines = append(lines, "- "+s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(now)) {
		if !old[s] {
			lines = append(lines, "+ "+s)
		}
	}
	return lines
}

const workdirStatement = "read-write the working directory"

// statements is a policy as the set of its smallest parts.
func statements(p *Policy) map[string]bool {
	set := map[string]bool{}
	if p == nil {
		return set
	}
	files := p.FilesystemRules()
	if files.IncludeWorkdir {
		set[workdirStatement] = true
	}
	for _, path := range files.ReadOnly {
		set["read-only "+printable.Text(path)] = true
	}
	for _, path := range files.ReadWrite {
		set["read-write "+printable.Text(path)] = true
	}
	if p.Landlock != nil && p.Landlock.Compatibility == CompatibilityHardRequirement {
		set["landlock hard_requirement"] = true
	}
	if p.Process != nil {
		set[fmt.Sprintf("process user %q group %q", p.Process.RunAsUser, p.Process.RunAsGroup)] = true
	}
	for _, r := range p.Network {
		if r != nil {
			r.statements(set)
		}
	}
	return set
}

func (r *Rule) statements(set map[string]bool) {
	binaries := r.Binaries
	if binaries == nil {
		binaries = []Binary{{"any program"}}
	}
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		for _, port := range e.PortList() {
			for _, b := range binaries {
				for _, what := range e.statements(port) {
					set[printable.Text(b.Path)+" "+what] = true
				}
			}
		}
	}
}

// statements describes what an endpoint allows on one of its ports.
func (e *Endpoint) statements(port uint16) []string {
	host := net.JoinHostPort(cmp.Or(wildcard.CanonicalHost(e.Host), "any host"), strconv.Itoa(int(port)))
	var suffix string
	if len(e.AllowedIPs) > 0 {
		suffix = " (addresses " + strings.Join(e.AllowedIPs, ", ") + ")"
	}
	if !Inspected(e.Protocol) {
		line := host + " (" + cmp.Or(e.Protocol, ProtocolTCP)
		if e.TLS != "" {
			line += ", tls: " + e.TLS
		}
		return []string{printable.Text(line + ")" + suffix)}
	}
	url := scheme(port) + host
	if e.Path != "" {
		suffix += " (under " + e.Path + ")"
	}
	if e.AllowEncodedSlash {
		suffix += " (encoded slashes)"
	}
	if e.Enforcement != EnforcementEnforce {
		suffix += " (audit: the rest is only logged)"
	}
	if e.protocol().Content {
		suffix = " (" + e.Protocol + ")" + suffix
	}
	if special := e.Special(); !reflect.ValueOf(special).IsZero() {
		suffix += " (options " + jsonText(special) + ")"
	}
	var lines []string
	for _, m := range e.Allowed() {
		lines = append(lines, printable.Text(m.Describe(url)+suffix))
	}
	for i := range e.DenyRules {
		lines = append(lines, printable.Text("never "+e.DenyRules[i].Describe(url)+suffix))
	}
	return lines
}

// scheme is what the well-known ports say; TLS on others is not known before
// the first byte.
func scheme(port uint16) string {
	switch port {
	case 80:
		return "http://"
	case 443:
		return "https://"
	default:
		return ""
	}
}

// Describe renders what is allowed or denied as "GET URL/path?key=glob", or as
// "URL query Name {fields}" and "URL tools/call tool" where a request carries it.
func (m *L7Match) Describe(url string) string {
	if m.Path == "" {
		return m.describeCall(url)
	}
	path := m.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	line := m.Method + " " + url + path
	for i, key := range slices.Sorted(maps.Keys(m.Query)) {
		line += string("?&"[min(i, 1)]) + key + "=" + strings.Join(m.Query[key].Any, "|")
	}
	if len(m.Upgrade) > 0 {
		line += " (upgrade to " + strings.Join(m.Upgrade, ", ") + ")"
	}
	return line
}

func (m *L7Match) describeCall(url string) string {
	words := []string{url}
	for _, p := range protocols {
		for _, f := range p.fields {
			if f.words == nil {
				continue
			}
			if word := f.words(m); word != "" {
				words = append(words, word)
			}
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}
