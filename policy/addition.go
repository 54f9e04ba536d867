// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"path"
	"strings"
)

// Addition is what a policy lacks for a program to do something, for the one way to make a rule of it: whoever
// is told of a denial, and by whatever, reads the same rule.
type Addition struct {
	Binary string
	Host   string // as rules name it
	Port   uint16
	UDP    bool
	// AllowedIPs are the addresses that the host may have, where they have to be named.
	AllowedIPs []string
	// Uninspected passes TLS on, because the program rejects the sandbox's CA.
	Uninspected bool
	// Content is what is said over the connection; where it is empty, anything may be.
	Content []Content
}

// Content is what an endpoint's rules have to allow.
type Content struct {
	Protocol    string // rest where it is empty
	Path        string // the endpoint's
	Enforcement string // enforce where it is empty
	Allow       []L7Match
}

// Rule is the rule that allows the addition and no more. It has no name.
func (a *Addition) Rule() *Rule {
	r := &Rule{Binaries: []Binary{{Path: a.Binary}}}
	connection := Endpoint{Host: a.Host, Ports: []uint16{a.Port}, AllowedIPs: a.AllowedIPs}
	for _, c := range a.Content {
		e := connection
		e.Protocol, e.Path = cmp.Or(c.Protocol, ProtocolREST), c.Path
		e.Enforcement = cmp.Or(c.Enforcement, EnforcementEnforce)
		for _, m := range c.Allow {
			e.Rules = append(e.Rules, L7Allow{Allow: m})
		}
		e.Fit()
		r.Endpoints = append(r.Endpoints, e)
	}
	if len(r.Endpoints) > 0 {
		return r
	}
	if a.UDP {
		connection.Protocol = ProtocolUDP
	}
	if a.Uninspected {
		connection.TLS = TLSSkip
	}
	r.Endpoints = []Endpoint{connection}
	return r
}

// Key is a readable key for the rule, such as "api_github_com_443_curl". Others may have the same.
func (a *Addition) Key() string {
	parts := []string{KeyWord(a.Host, 64), fmt.Sprint(a.Port)}
	if a.UDP {
		parts = append(parts, ProtocolUDP)
	}
	return strings.Join(append(parts, KeyWord(path.Base(a.Binary), 32)), "_")
}

// KeyWord keeps a name's letters and digits, for a key.
func KeyWord(s string, limit int) string {
	word := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, s)
	return word[:min(len(word), limit)]
}
