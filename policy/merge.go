// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"slices"
)

// Merge returns the effective policy: base ∪ learned, sharing nothing with
// either. The learned rules are marked and keep their keys, with "_learned"
// added where the base has another rule of the same key; a learned rule that the
// base has already, as an exported policy does, is not repeated. The lists of
// filesystem paths are unioned, and sorted. How Landlock and the process are
// treated is the base's to say. A nil policy adds nothing.
//
// Of policies that were learned, either may be the base: what is allowed does not
// depend on it, nor does what Marshal writes, unless they use one key for
// different rules.
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
		files.ReadOnly = sortedSet(slices.Concat(files.ReadOnly, learned.Filesystem.ReadOnly))
		files.ReadWrite = sortedSet(slices.Concat(files.ReadWrite, learned.Filesystem.ReadWrite))
		merged.Filesystem = &files
	}
	for _, key := range slices.Sorted(maps.Keys(learned.Network)) {
		if r := learned.Network[key]; r == nil || repeated(base.Network, key, r) {
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

// repeated reports whether the base has a learned rule already, under its key or
// one that freeKey made from it.
func repeated(base map[string]*Rule, key string, r *Rule) bool {
	for ; base[key] != nil; key += "_learned" {
		if base[key].Learned && RuleDigest(base[key]) == RuleDigest(r) {
			return true
		}
	}
	return false
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
		c.Endpoints[i] = c.Endpoints[i].clone()
	}
	return &c
}

func (e Endpoint) clone() Endpoint {
	e.Ports = slices.Clone(e.Ports)
	e.AllowedIPs = slices.Clone(e.AllowedIPs)
	e.Rules = slices.Clone(e.Rules)
	for i := range e.Rules {
		e.Rules[i].Allow = e.Rules[i].Allow.clone()
	}
	e.DenyRules = slices.Clone(e.DenyRules)
	for i := range e.DenyRules {
		e.DenyRules[i] = e.DenyRules[i].clone()
	}
	e.GraphQLPersistedQueries = maps.Clone(e.GraphQLPersistedQueries)
	for key, operation := range e.GraphQLPersistedQueries {
		operation.Fields = slices.Clone(operation.Fields)
		e.GraphQLPersistedQueries[key] = operation
	}
	if e.JSONRPC != nil {
		options := *e.JSONRPC
		e.JSONRPC = &options
	}
	if e.MCP != nil {
		options := *e.MCP
		if options.StrictToolNames != nil {
			strict := *options.StrictToolNames
			options.StrictToolNames = &strict
		}
		e.MCP = &options
	}
	return e
}

func (m L7Match) clone() L7Match {
	m.Query = cloneMatchers(m.Query)
	m.Fields = slices.Clone(m.Fields)
	m.Tool = m.Tool.clone()
	m.Params = cloneMatchers(m.Params)
	return m
}

func (m Matcher) clone() Matcher { return Matcher{Any: slices.Clone(m.Any)} }

func cloneMatchers(matchers map[string]Matcher) map[string]Matcher {
	c := maps.Clone(matchers)
	for key, m := range c {
		c[key] = m.clone()
	}
	return c
}
