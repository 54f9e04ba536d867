// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"

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
	trusted := map[string]bool{} // what a rule that was not learned reaches
	for _, r := range p.Network {
		for _, what := range publicOnly(r) {
			trusted[what] = trusted[what] || !r.Learned
		}
	}
	for key, r := range p.Network {
		section := Child("network_policies", key)
		add(section, &Policy{Network: map[string]*Rule{key: r}})
		for _, what := range publicOnly(r) {
			if r.Learned && !trusted[what] {
				all[section].words[what+": public addresses only ("+learnedComment+")"] = true
			}
		}
	}
	return all
}

// publicOnly is what a rule reaches at public addresses only if it was learned.
func publicOnly(r *Rule) []string {
	bare := &Rule{Binaries: r.Binaries}
	for _, e := range r.Endpoints {
		if e.Kind() != ExactHost || len(e.AllowedIPs) > 0 {
			continue
		}
		connection := Endpoint{Host: e.Host, Port: e.Port, Ports: e.Ports}
		if e.Protocol == ProtocolUDP {
			connection.Protocol = ProtocolUDP
		}
		bare.Endpoints = append(bare.Endpoints, connection)
	}
	words := map[string]bool{}
	bare.statements(words)
	return slices.Sorted(maps.Keys(words))
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
	if canonicalize := e.protocol().canonicalize; canonicalize != nil {
		canonicalize(e)
	}
	if !Inspected(e.Protocol) {
		e.Access, e.Enforcement = "", ""
		return
	}
	e.Enforcement = cmp.Or(e.Enforcement, EnforcementAudit)
	if e.Path == "/**" || e.Path == "**" {
		e.Path = ""
	}
	e.Rules, e.DenyRules = sortedByText(e.Rules), sortedByText(e.DenyRules)
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
