// SPDX-License-Identifier: Apache-2.0

package names

import "strings"

// maxServiceName is what RFC 6335 section 5.1 allows the name of a service, in
// characters.
const maxServiceName = 15

// ServiceHost returns the host that a name tells of: it is the last part of
// _name.HOST (RFC 8552) and of _service._proto.HOST (RFC 2782). It returns any
// other name as it is. That there are at most two such labels, and that they are
// short, bounds what can be told to HOST's name servers by asking.
func ServiceHost(name string) string {
	host := name
	for range 2 {
		label, rest, ok := strings.Cut(host, ".")
		if !ok || !isServiceLabel(label) {
			break
		}
		host = rest
	}
	if strings.HasPrefix(host, "_") {
		return name
	}
	return host
}

func isServiceLabel(label string) bool {
	service, ok := strings.CutPrefix(label, "_")
	if !ok || service == "" || len(service) > maxServiceName {
		return false
	}
	for _, c := range []byte(service) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
