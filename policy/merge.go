package policy

import (
	"maps"
	"slices"
)

// Merge returns the effective policy: base ∪ learned, sharing nothing with
// either. The learned rules are marked and keep their keys, with "_learned"
// added where the base has the same; the lists of filesystem paths are
// unioned. How Landlock and the process are treated is the base's to say. A
// nil policy adds nothing.
func Merge(base, learned *Policy) *Policy {
	if base == nil {
		base = &Policy{Version: 1}
	}
	merged := base.Clone()
	if learned == nil {
		return merged
	}
	if learned.Filesystem != nil {
		files := merged.FilesystemRules()
		files.IncludeWorkdir = files.IncludeWorkdir || learned.Filesystem.IncludeWorkdir
		files.ReadOnly = union(files.ReadOnly, learned.Filesystem.ReadOnly)
		files.ReadWrite = union(files.ReadWrite, learned.Filesystem.ReadWrite)
		merged.Filesystem = &files
	}
	for _, key := range slices.Sorted(maps.Keys(learned.Network)) {
		if learned.Network[key] == nil {
			continue
		}
		r := learned.Network[key].Clone()
		r.Learned = true
		if merged.Network == nil {
			merged.Network = map[string]*Rule{}
		}
		merged.Network[freeKey(key, base.Network, learned.Network, merged.Network)] = r
	}
	return merged
}

// freeKey returns the key, or one made from it that nobody uses: neither what
// is merged already nor what is still to come.
func freeKey(key string, base, learned, merged map[string]*Rule) string {
	if base[key] == nil && merged[key] == nil {
		return key
	}
	for {
		key += "_learned"
		if merged[key] == nil && learned[key] == nil {
			return key
		}
	}
}

// union appends to a what of b it does not have.
func union(a, b []string) []string {
	seen := make(map[string]bool, len(a))
	for _, s := range a {
		seen[s] = true
	}
	for _, s := range b {
		if !seen[s] {
			seen[s] = true
			a = append(a, s)
		}
	}
	return a
}

// Clone returns a deep copy.
func (p *Policy) Clone() *Policy {
	c := *p
	if p.Filesystem != nil {
		files := *p.Filesystem
		files.ReadOnly = slices.Clone(files.ReadOnly)
		files.ReadWrite = slices.Clone(files.ReadWrite)
		c.Filesystem = &files
	}
	if p.Landlock != nil {
		landlock := *p.Landlock
		c.Landlock = &landlock
	}
	if p.Process != nil {
		process := *p.Process
		c.Process = &process
	}
	c.Network = maps.Clone(p.Network)
	for key, r := range c.Network {
		if r != nil {
			c.Network[key] = r.Clone()
		}
	}
	return &c
}

// Clone returns a deep copy.
func (r *Rule) Clone() *Rule {
	c := *r
	c.Binaries = slices.Clone(r.Binaries)
	c.Endpoints = slices.Clone(r.Endpoints)
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		e.Ports = slices.Clone(e.Ports)
		e.AllowedIPs = slices.Clone(e.AllowedIPs)
		e.Rules = slices.Clone(e.Rules)
		for j := range e.Rules {
			e.Rules[j].Allow.Query = cloneQuery(e.Rules[j].Allow.Query)
		}
		e.DenyRules = slices.Clone(e.DenyRules)
		for j := range e.DenyRules {
			e.DenyRules[j].Query = cloneQuery(e.DenyRules[j].Query)
		}
	}
	return &c
}

func cloneQuery(query map[string]Matcher) map[string]Matcher {
	c := maps.Clone(query)
	for key, m := range c {
		c[key] = Matcher{Any: slices.Clone(m.Any)}
	}
	return c
}
