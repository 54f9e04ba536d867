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
	if e.knownNames[host] {
		return true
	}
	for suffix, more := parent(host); more; suffix, more = parent(suffix) {
		for _, pattern := range e.knownSuffixes[suffix] {
			if pattern.match(host) {
				return true
			}
		}
	}
	return false
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
	for suffix, more := parent(host); more; suffix, more = parent(suffix) {
		for _, w := range e.wildcards[nameKey{suffix, s}] {
			if w.pattern.match(host) {
				take(w.bucket)
			}
		}
	}
	take(e.hostless[s])
	slices.Sort(keys)
	return slices.Compact(keys)
}
