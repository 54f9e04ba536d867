// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

// Endpoints is a set of destinations outside of any rule, such as those that
// permissive mode does not open. The nil set is empty. It is immutable and safe
// for concurrent use.
type Endpoints struct{ list []destination }

type destination struct {
	name string                        // lower case, where it is neither an address nor a wildcard
	addr netip.Addr                    // where the host is an address
	wild *wildcard.HostIndex[struct{}] // where it is a wildcard
	port uint16                        // 0: every port
}

// ParseEndpoints reads destinations of the form host or host:port. A host is
// what an Endpoint's may be: a name, an address, or a name with `*` (one label)
// and `**` (one or more). An IPv6 address with a port is in brackets. The
// error names the destination and what is wrong with it.
func ParseEndpoints(texts []string) (*Endpoints, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	set := new(Endpoints)
	for _, text := range texts {
		d, err := parseDestination(text)
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", printable.Text(text), err)
		}
		set.list = append(set.list, d)
	}
	return set, nil
}

func parseDestination(text string) (d destination, err error) {
	host, port := text, ""
	if _, err := netip.ParseAddr(text); err != nil && !strings.Contains(text, "://") {
		if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
			host, port = text[:i], text[i+1:]
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil || n == 0 {
				return d, fmt.Errorf("port %s must be from 1 to 65535", printable.Text(port))
			}
			d.port = uint16(n)
		}
	}
	if err := wildcard.CheckHost(host); err != nil {
		return d, err
	}
	host = wildcard.CanonicalHost(host)
	if addr, ok := wildcard.HostAddr(host); ok {
		d.addr = addr
	} else if strings.Contains(host, "*") {
		d.wild = new(wildcard.HostIndex[struct{}])
		d.wild.Add(host)
	} else {
		d.name = host
	}
	return d, nil
}

// Contain reports whether a destination is in the set. host is a name or an
// address.
func (e *Endpoints) Contain(host string, port uint16) bool {
	return e.contain(host, func(d *destination) bool { return d.port == 0 || d.port == port })
}

// ContainHost reports whether every port of a host is in the set.
func (e *Endpoints) ContainHost(host string) bool {
	return e.contain(host, func(d *destination) bool { return d.port == 0 })
}

// HasAddresses reports whether a port is in the set at some address, so that a name is in it if it leads there.
func (e *Endpoints) HasAddresses(port uint16) bool {
	return e != nil && slices.ContainsFunc(e.list, func(d destination) bool {
		return d.addr.IsValid() && (d.port == 0 || d.port == port)
	})
}

func (e *Endpoints) contain(host string, port func(*destination) bool) bool {
	if e == nil {
		return false
	}
	host = wildcard.CanonicalHost(host)
	addr, literal := wildcard.HostAddr(host)
	for i := range e.list {
		d := &e.list[i]
		if port(d) && d.covers(host, addr, literal) {
			return true
		}
	}
	return false
}

func (d *destination) covers(host string, addr netip.Addr, literal bool) bool {
	switch {
	case d.addr.IsValid():
		return literal && d.addr == addr.WithZone("")
	case d.name != "":
		return d.name == host
	default:
		return !literal && d.wild.Any(host, func(*wildcard.HostEntry[struct{}]) bool { return true })
	}
}
