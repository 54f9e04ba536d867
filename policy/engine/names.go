// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"openshell.ai/openshell/internal/ipaddr"

	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
)

// NameKnown reports whether a rule, whatever its ports and binaries, names a
// host, so that the name may be sent to a DNS server. Endpoints without a host
// name none, and a metadata service's name is never known.
func (e *Engine) NameKnown(host string) bool {
	host = wildcard.CanonicalHost(host)
	if wildcard.IsMetadataHost(host) {
		return false
	}
	return e.knownNames[host] || e.wildcards.Any(host, func(*wildcard.HostEntry[serviceBuckets]) bool { return true })
}

// rulesFor returns the first keys, in order and at most n, of the rules that name
// an endpoint. Its time does not depend on how many there are: it looks each one
// up in every bucket's sorted keys.
func (e *Engine) rulesFor(host string, s policy.Service, n int) []string {
	var buckets []*bucket
	take := func(b *bucket) {
		if b != nil {
			buckets = append(buckets, b)
		}
	}
	if addr, literal := wildcard.HostAddr(host); literal {
		take(e.addrs[addrKey{ipaddr.Plain(addr), s}])
	} else {
		take(e.names[nameKey{host, s}])
	}
	e.wildcards.Any(host, func(w *wildcard.HostEntry[serviceBuckets]) bool {
		take(w.Value[s])
		return false
	})
	take(e.hostless[s])
	keys := make([]string, 0, n)
	for len(keys) < n {
		next, found := "", false
		for _, b := range buckets {
			if key, ok := b.after(keys); ok && (!found || key < next) {
				next, found = key, true
			}
		}
		if !found {
			break
		}
		keys = append(keys, next)
	}
	return keys
}

// after returns the bucket's first key that is behind the last of those given.
func (b *bucket) after(keys []string) (key string, ok bool) {
	i := 0
	if len(keys) > 0 {
		found := false
		if i, found = slices.BinarySearch(b.keys, keys[len(keys)-1]); found {
			i++
		}
	}
	if i == len(b.keys) {
		return "", false
	}
	return b.keys[i], true
}
