// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/names"
)

// hosts are the names that the engine wrote into the containers' hosts files.
type hosts struct {
	*names.Hosts
	read map[rootfs.ID]bool // the files; applying guards it
}

// newHosts returns the first container's.
func newHosts(r Resolver) hosts {
	return hosts{names.ParseHosts(r.Hosts), map[rootfs.ID]bool{r.HostsFile: true}}
}

// addHosts makes the names in a further container's hosts file known, which is
// about to be made. s.applying must be held. A file that an earlier container had does not count again, for
// its workload may have changed what a name that the policy allows stands for:
// a pod's containers may share one.
func (s *Sandbox) addHosts(container string, r Resolver) error {
	if r.Hosts == "" || r.HostsFile == (rootfs.ID{}) {
		return nil
	}
	if s.hosts.read[r.HostsFile] {
		return nil
	}
	if err := s.remember(entry{Hosts: &r}); err != nil {
		return err
	}
	s.hosts.read[r.HostsFile] = true
	before := s.hostAliases()
	if contradicted := s.hosts.Add(r.Hosts); len(contradicted) > 0 {
		s.recordContradiction(container, contradicted)
	}
	if maps.EqualFunc(before, s.hostAliases(), slices.Equal) {
		return nil
	}
	return s.setRules(s.rules.Load().policies)
}

// hostAliases are the engine's names for the host in the containers' hosts files.
func (s *Sandbox) hostAliases() map[string][]netip.Addr {
	aliases := map[string][]netip.Addr{}
	for _, name := range engine.HostAliases() {
		aliases[name] = s.hosts.Addresses(name)
	}
	return aliases
}

// maxContradicted bounds the names that one line of the log lists.
const maxContradicted = 8

func (s *Sandbox) recordContradiction(container string, contradicted []string) {
	list := make([]string, 0, maxContradicted)
	for _, name := range contradicted[:min(len(contradicted), maxContradicted)] {
		list = append(list, audit.Escape(name, 256))
	}
	more := ""
	if n := len(contradicted) - len(list); n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "HOSTS", Severity: audit.SeverityLow,
		Message: fmt.Sprintf("the hosts file of container %s has other addresses for %s%s than an earlier container's, which holds",
			container, strings.Join(list, ", "), more)})
}
