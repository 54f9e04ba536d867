// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"openshell.ai/openshell/internal/learn/paths"
)

// minSiblings is how many hosts have to vary before a wildcard for them is worth a thought.
const minSiblings = 3

// Suggestions returns, by the ids of proposals, a wildcard that one rule could have in place of the
// hosts of several: hosts that differ in one label, there by a number or a hash, for the same
// program, port and requests. A wildcard never stands for different owners: not before a
// public suffix, those of providers that let names to others included (publicsuffix.org).
// It is for a person to write such a rule; nothing proposes it.
func Suggestions(proposals []Proposal) map[string]string {
	groups := map[string]map[string]string{} // siblings: host to id
	for i := range proposals {
		p := &proposals[i]
		if !p.learned() || p.Rule == nil || p.Status == StatusRejected {
			continue
		}
		for key := range siblingKeys(p) {
			if groups[key] == nil {
				groups[key] = map[string]string{}
			}
			groups[key][p.target().host] = p.ID
		}
	}
	found := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		hosts := groups[key]
		if len(hosts) < minSiblings {
			continue
		}
		pattern, _, _ := strings.Cut(key, "\n")
		for _, id := range hosts {
			found[id] = cmp.Or(found[id], fmt.Sprintf("%d hosts differ in one label only, by a number or a hash; "+
				"one rule of your own for %s would cover them, and every other host of that form", len(hosts), pattern))
		}
	}
	return found
}

// siblingKeys are what a proposal shares with its siblings, for each label that may vary: the pattern,
// and on further lines the form of the label and everything else about the rule.
func siblingKeys(p *Proposal) map[string]bool {
	host := p.target().host
	labels := strings.Split(host, ".")
	keys := map[string]bool{}
	for i, label := range labels {
		form, varies := labelForm(label)
		rest := strings.Join(labels[i+1:], ".")
		pattern := strings.Join(slices.Concat(labels[:i], []string{"*"}, labels[i+1:]), ".")
		if !varies || !ownedByOne(rest) {
			continue
		}
		rule := p.Rule.Clone()
		rule.Name = ""
		for j := range rule.Endpoints {
			rule.Endpoints[j].Host = pattern
		}
		text, err := json.Marshal(rule)
		if err != nil || rule.Validate(p.RuleName) != nil {
			continue
		}
		keys[pattern+"\n"+form+"\n"+string(text)] = true
	}
	return keys
}

// ownedByOne reports whether all names below one belong to the same registrant.
func ownedByOne(name string) bool {
	suffix, _ := publicsuffix.PublicSuffix(name)
	return name != "" && name != suffix
}

// labelForm is a label without its numbers and hashes, and whether it has any.
func labelForm(label string) (form string, varies bool) {
	parts := strings.Split(label, "-")
	for i, part := range parts {
		switch paths.TypeOf(part) {
		case paths.Integer, paths.UUID, paths.Hex, paths.Token:
			parts[i], varies = "#", true
			continue
		}
		if stem := strings.TrimRight(part, "0123456789"); stem != part {
			parts[i], varies = stem+"#", true
		}
	}
	return strings.Join(parts, "-"), varies
}
