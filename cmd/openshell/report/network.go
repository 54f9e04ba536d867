// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/policy"
)

// What a part of the map comes from, besides the proposals' statuses.
const (
	fromBase   = "base"
	anyProgram = "any program"
	anyContent = "any content"
	anyTLS     = "any content, TLS passed on unseen"
)

// program is a binary in the map, with the hosts it reaches.
type program struct {
	Path  string
	Hosts []host
	More  int
}

type host struct {
	Name     string // with the port, and udp
	Requests []request
	More     int
}

// request is something that may be sent to a host, or was.
type request struct {
	What   string
	Status string // base, approved, pending, rejected or superseded
}

// reach is one line of the map, before it is a tree.
type reach struct{ binary, host, what string }

// programs are the binaries, what they reach and what they send there: what the effective policy allows,
// and what was proposed besides.
func (d *Data) programs() ([]program, int) {
	tree := map[string]map[string]map[string]string{}
	put := func(r reach, status string) {
		hosts := tree[r.binary]
		if hosts == nil {
			hosts = map[string]map[string]string{}
			tree[r.binary] = hosts
		}
		if hosts[r.host] == nil {
			hosts[r.host] = map[string]string{}
		}
		if _, ok := hosts[r.host][r.what]; !ok { // what is in force comes first
			hosts[r.host][r.what] = status
		}
	}
	for _, side := range []struct {
		of     *policy.Policy
		status string
	}{{d.Base, fromBase}, {d.Learned, learn.StatusApproved}} {
		if side.of == nil {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(side.of.Network)) {
			for _, r := range reaches(side.of.Network[key]) {
				put(r, side.status)
			}
		}
	}
	for _, status := range describe.Statuses {
		for i := range d.Proposals {
			p := &d.Proposals[i]
			if p.Status != status || p.Rule == nil {
				continue
			}
			for _, r := range reaches(p.Rule) {
				put(r, taken(p, status))
			}
		}
	}
	return grow(tree)
}

// taken is what became of a part of a proposal that is not in force: an approval has left it out.
func taken(p *learn.Proposal, status string) string {
	if status == learn.StatusApproved && p.Tightened != nil {
		return learn.StatusRejected
	}
	return status
}

func reaches(r *policy.Rule) []reach {
	binaries := r.Binaries
	if binaries == nil {
		binaries = []policy.Binary{{Path: anyProgram}}
	}
	var all []reach
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		sent := contents(e)
		for _, port := range e.PortList() {
			name := net.JoinHostPort(cmp.Or(e.Host, "*"), strconv.Itoa(int(port)))
			if e.Protocol == policy.ProtocolUDP {
				name += " (udp)"
			}
			for _, b := range binaries {
				for _, what := range sent {
					all = append(all, reach{describe.Plain(b.Path), describe.Plain(name), describe.Plain(what)})
				}
			}
		}
	}
	return all
}

// contents are what an endpoint allows to be sent.
func contents(e *policy.Endpoint) []string {
	sent := learn.Grants(&policy.Rule{Endpoints: []policy.Endpoint{*e}})
	switch {
	case e.Access != "":
		sent = append(sent, e.Access+" requests")
	case len(sent) == 0 && e.TLS == policy.TLSSkip:
		sent = append(sent, anyTLS)
	case len(sent) == 0:
		sent = append(sent, anyContent)
	}
	return sent
}

// grow makes the map's tree, sorted and bounded.
func grow(tree map[string]map[string]map[string]string) (all []program, more int) {
	room := maxMap
	for _, binary := range slices.Sorted(maps.Keys(tree)) {
		if len(all) == maxPrograms || room == 0 {
			return all, len(tree) - len(all)
		}
		p := program{Path: binary}
		for _, name := range slices.Sorted(maps.Keys(tree[binary])) {
			if len(p.Hosts) == maxHosts || room == 0 {
				p.More = len(tree[binary]) - len(p.Hosts)
				break
			}
			h := host{Name: name}
			limit := min(maxRequests, room)
			for _, what := range slices.Sorted(maps.Keys(tree[binary][name])) {
				if len(h.Requests) == limit {
					h.More = len(tree[binary][name]) - limit
					break
				}
				h.Requests = append(h.Requests, request{what, tree[binary][name][what]})
			}
			room -= len(h.Requests)
			p.Hosts = append(p.Hosts, h)
		}
		all = append(all, p)
	}
	return all, 0
}
