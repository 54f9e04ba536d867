// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// Change is how one part of a policy differs from another policy's.
type Change struct {
	// Section is the part: "network_policies.KEY", "filesystem_policy",
	// "landlock" or "process". Kind is "added", "removed" or "changed".
	Section string `json:"section"`
	Kind    string `json:"kind"`
	// Removed and Added are the permissions, in the words of Diff.
	Removed []string `json:"removed,omitempty"`
	Added   []string `json:"added,omitempty"`
	// Before and After are the part as YAML in canonical form; one is empty where
	// the policy does not have it.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Compare tells what two policies allow differently, by their parts, in order.
// Nothing is told of what is only written differently: the order of lists, one
// rule or several, names and comments, port or ports, an access preset or the
// rules it stands for. The policies have to be valid.
func Compare(before, after *Policy) []Change {
	old, now := parts(before.Canonical()), parts(after.Canonical())
	had, has := permissions(old), permissions(now)
	var changes []Change
	for _, section := range slices.Sorted(maps.Keys(union2(old, now))) {
		c := Change{Section: section, Kind: "changed", Before: old[section].yaml, After: now[section].yaml}
		switch {
		case c.Before == "":
			c.Kind = "added"
		case c.After == "":
			c.Kind = "removed"
		}
		c.Removed = missing(old[section].words, has)
		c.Added = missing(now[section].words, had)
		if len(c.Removed) > 0 || len(c.Added) > 0 {
			changes = append(changes, c)
		}
	}
	return changes
}

// part is a section or a rule.
type part struct {
	words map[string]bool
	yaml  string
}

func union2(a, b map[string]part) map[string]part {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func permissions(of map[string]part) map[string]bool {
	all := map[string]bool{}
	for _, p := range of {
		maps.Copy(all, p.words)
	}
	return all
}

func missing(words, in map[string]bool) []string {
	var sorted []string
	for _, w := range slices.Sorted(maps.Keys(words)) {
		if !in[w] {
			sorted = append(sorted, w)
		}
	}
	return sorted
}

// parts divides a canonical policy.
func parts(p *Policy) map[string]part {
	all := map[string]part{}
	add := func(section string, only *Policy) {
		only.Version = 1
		data, err := encodePolicy(only)
		if err != nil {
			data = []byte(err.Error())
		}
		yaml := strings.TrimPrefix(string(data), "version: 1\n")
		words := statements(only)
		if only.Filesystem == nil {
			delete(words, workdirStatement) // what an absent section means is not this part's
		}
		if len(words) > 0 {
			all[section] = part{words, yaml}
		}
	}
	add("filesystem_policy", &Policy{Filesystem: p.Filesystem})
	add("landlock", &Policy{Landlock: p.Landlock})
	add("process", &Policy{Process: p.Process})
	for key, r := range p.Network {
		section := Child("network_policies", key)
		add(section, &Policy{Network: map[string]*Rule{key: r}})
		if rule := all[section]; r.Learned {
			for i := range r.Endpoints {
				if e := &r.Endpoints[i]; len(e.AllowedIPs) == 0 && e.Host != "" && !strings.Contains(e.Host, "*") {
					rule.words[printable.Text(e.Host)+": public addresses only ("+learnedComment+")"] = true
				}
			}
		}
	}
	return all
}

// Canonical returns a copy that is written like every policy that allows the same
// by the same rules.
func (p *Policy) Canonical() *Policy {
	c := p.Clone()
	files := c.FilesystemRules()
	files.ReadOnly = sortedSet(cleanPaths(files.ReadOnly))
	files.ReadWrite = sortedSet(cleanPaths(files.ReadWrite))
	c.Filesystem = &files
	if !c.RequiresLandlock() {
		c.Landlock = nil
	}
	if c.Process != nil && *c.Process == (Process{}) {
		c.Process = nil
	}
	maps.DeleteFunc(c.Network, func(_ string, r *Rule) bool { return len(r.Endpoints) == 0 })
	for _, r := range c.Network {
		r.Name = ""
		slices.SortFunc(r.Binaries, func(a, b Binary) int { return strings.Compare(a.Path, b.Path) })
		r.Binaries = slices.Compact(r.Binaries)
		for i := range r.Endpoints {
			r.Endpoints[i].canonicalize()
		}
		r.Endpoints = sortedByText(r.Endpoints)
	}
	return c
}

func (e *Endpoint) canonicalize() {
	e.Host = wildcard.CanonicalHost(e.Host)
	e.Ports, e.Port = sortedSet(e.PortList()), 0
	if len(e.Ports) == 1 {
		e.Port, e.Ports = e.Ports[0], nil
	}
	for i, s := range e.AllowedIPs {
		if prefix, err := ParsePrefix(s); err == nil {
			e.AllowedIPs[i] = prefix.String()
		}
	}
	e.AllowedIPs = sortedSet(e.AllowedIPs)
	if e.Protocol == ProtocolTCP {
		e.Protocol = ""
	}
	if !Inspected(e.Protocol) {
		e.Access, e.Enforcement = "", ""
		return
	}
	e.Enforcement = cmp.Or(e.Enforcement, EnforcementAudit)
	if e.Path == "/**" || e.Path == "**" {
		e.Path = ""
	}
	if e.Protocol == ProtocolREST {
		e.canonicalizeRules()
	}
	e.Rules, e.DenyRules = sortedByText(e.Rules), sortedByText(e.DenyRules)
}

// canonicalizeRules writes HTTP's rules in one way, and as a preset where there
// is one.
func (e *Endpoint) canonicalizeRules() {
	allowed := canonicalMatches(slices.Clone(e.Allowed()))
	e.Access = ""
	for access, preset := range presets {
		if reflect.DeepEqual(allowed, canonicalMatches(slices.Clone(preset))) {
			e.Access = access
		}
	}
	e.Rules = nil
	for _, m := range allowed {
		if e.Access == "" {
			e.Rules = append(e.Rules, L7Allow{m})
		}
	}
	e.DenyRules = canonicalMatches(e.DenyRules)
}

func canonicalMatches(matches []L7Match) []L7Match {
	for i := range matches {
		m := &matches[i]
		m.Method = strings.ToUpper(m.Method)
		if m.Path == "/**" {
			m.Path = "**"
		}
		for key, matcher := range m.Query {
			m.Query[key] = Matcher{sortedSet(matcher.Any)}
		}
	}
	matches = sortedByText(matches)
	gets := map[string]bool{}
	for _, m := range matches {
		if m.Method == "GET" {
			m.Method = "HEAD"
			gets[jsonText(m)] = true
		}
	}
	// GET covers HEAD.
	return slices.DeleteFunc(matches, func(m L7Match) bool { return gets[jsonText(m)] })
}

func sortedSet[T cmp.Ordered](list []T) []T {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

// sortedByText sorts a list by its elements' JSON, and drops the repeated ones.
func sortedByText[T any](list []T) []T {
	texts := make(map[string]T, len(list))
	for _, element := range list {
		texts[jsonText(element)] = element
	}
	var sorted []T
	for _, text := range slices.Sorted(maps.Keys(texts)) {
		sorted = append(sorted, texts[text])
	}
	return sorted
}

func jsonText(v any) string {
	text, _ := json.Marshal(v) // of plain data: it cannot fail
	return string(text)
}

func cleanPaths(paths []string) []string {
	clean := make([]string, len(paths))
	for i, name := range paths {
		clean[i] = path.Clean(name)
	}
	return clean
}
