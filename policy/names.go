package policy

import "slices"

// NameKnown reports whether a rule, whatever its ports and binaries, names a
// host, so that the name may be sent to a DNS server. Endpoints without a host
// name none, and a metadata service's name is never known.
func (e *Engine) NameKnown(host string) bool {
	host = canonicalHost(host)
	if metadataHost(host) {
		return false
	}
	return e.knownNames[host] || e.wildcards.any(host, func(*wildcardHost) bool { return true })
}

// rulesFor returns the sorted keys of the rules that name an endpoint.
func (e *Engine) rulesFor(host string, s service) []string {
	var keys []string
	take := func(b *bucket) {
		if b != nil {
			keys = append(keys, b.keys...)
		}
	}
	if addr, literal := hostAddr(host); literal {
		take(e.addrs[addrKey{plain(addr), s}])
	} else {
		take(e.names[nameKey{host, s}])
	}
	e.wildcards.any(host, func(w *wildcardHost) bool {
		take(w.buckets[s])
		return false
	})
	take(e.hostless[s])
	slices.Sort(keys)
	return slices.Compact(keys)
}
