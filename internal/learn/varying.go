// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"slices"
	"strings"
)

const (
	// ftpControl is the port by which an FTP client is told the one for each transfer (RFC 959).
	ftpControl = 21
	// firstUser is where the ports begin that anybody may listen at.
	firstUser = 1024
	// firstAssigned is where those begin that Linux gives to whoever asks for any (ip_local_port_range).
	firstAssigned = 32768
	// minVarying is how many of those one run has to have used for them to vary within it.
	minVarying = 3
)

// noteVarying begins the note of proposals whose port is the server's choice.
const noteVarying = "The server seems to choose this port anew each time"

// markVarying marks the proposals whose port the server has told the client, as FTP does for each transfer: the
// next run needs another, so that such a rule only opens a port for whoever listens there next. Those are
// ports for content that is not HTTP that only one run has used, and
//   - whose program and host also have FTP's control connection, or
//   - that are dynamic ones, as are those that another run, or this one at other times, has used with that host.
//
// It depends on all proposals of a policy, so that every list of them says it anew, whatever is on disk.
func markVarying(proposals []Proposal) {
	for i := range proposals {
		p := &proposals[i]
		p.Flags.PortVaries = false
		p.SecurityNotes = slices.DeleteFunc(p.SecurityNotes, func(n string) bool {
			return strings.HasPrefix(n, noteVarying)
		})
	}
	groups := map[string][]*Proposal{} // by program and host
	controls := map[string]map[string]bool{}
	for i := range proposals {
		p := &proposals[i]
		if p.Kind != KindNetwork || !p.learned() || len(p.endpoints()) == 0 || len(p.endpoints()[0].Ports) == 0 {
			continue
		}
		t := p.target()
		switch {
		case t.port == ftpControl && t.protocol == "":
			if controls[t.binary] == nil {
				controls[t.binary] = map[string]bool{}
			}
			for _, host := range append([]string{t.host}, p.Evidence.ResolvedIPs...) {
				controls[t.binary][host] = true // a server may tell its address with the port
			}
		case t.port >= firstUser && services[t.port] == "" && p.endpoints()[0].Rules == nil && len(p.Provenance.Runs) == 1:
			key := t.binary + "\n" + t.host
			groups[key] = append(groups[key], p)
		}
	}
	for _, group := range groups {
		t := group[0].target()
		ftp := controls[t.binary][t.host]
		varying := slices.DeleteFunc(group, func(p *Proposal) bool {
			return !ftp && p.target().port < firstAssigned
		})
		if !ftp && len(varying) < minVarying && !differByRun(varying) {
			continue
		}
		for _, p := range varying {
			p.markVarying(ftp, varying)
		}
	}
}

// differByRun reports whether there were several runs. Each of the proposals was seen in one.
func differByRun(group []*Proposal) bool {
	return slices.ContainsFunc(group, func(p *Proposal) bool {
		return p.Provenance.Runs[0].Run != group[0].Provenance.Runs[0].Run
	})
}

func (p *Proposal) markVarying(ftp bool, seen []*Proposal) {
	p.Flags.PortVaries = true
	var ports []string
	for _, o := range seen[:min(len(seen), maxNoteSamples)] {
		ports = append(ports, fmt.Sprint(o.target().port))
	}
	slices.Sort(ports)
	why := "as for FTP's data connections"
	if !ftp {
		why = "none was used in two runs"
	}
	p.SecurityNotes = append(slices.Clip(p.SecurityNotes), fmt.Sprintf("%s (%s; seen: %s): a rule "+
		"for it does not let the next run through. Have the server use a fixed range, and write a rule with its ports, or use a "+
		"protocol on one port.", noteVarying, why, strings.Join(ports, ", ")))
}
