// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/identity"
)

// observe takes what the proxy did to the audit log and, where it is evidence
// of what the policy lacks, to the learner.
func (s *Sandbox) observe(r proxy.Record) {
	if r.Evidence {
		s.learner.Observe(denialOf(r))
		// That it was let through was recorded when it was opened.
		if r.Outcome == decision.Logged && (r.Kind == proxy.Connect || r.Kind == proxy.Raw) {
			return
		}
	}
	if note, ok := noteOf(r); ok {
		s.learner.Note(note)
	}
	s.record(eventOf(r))
}

// record completes an event and writes it down.
func (s *Sandbox) record(e audit.Event) {
	e.Sandbox, e.Container, e.Mode = s.request.ID, s.request.Container.ID, s.mode.name()
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	s.denials.note(e)
	s.log.Record(e)
}

func eventOf(r proxy.Record) audit.Event {
	r.Path = learn.Mask(r.Path)
	e := audit.Event{
		Time: r.Time, Class: audit.ClassNetwork, Activity: "OPEN",
		Process: processOf(r.Process), Host: r.Host, Port: r.Port,
		Policy: r.Policy, Engine: r.Layer, Reason: r.Reason,
	}
	if len(r.Addrs) > 0 {
		e.IP = r.Addrs[0]
	} else if a, err := netip.ParseAddr(r.Host); err == nil {
		e.IP = a
	}
	e.Protocol = transport(r)
	if r.Kind == proxy.Request || r.Kind == proxy.Message {
		e.Class, e.Activity = audit.ClassHTTP, r.Method
		e.HTTP = &audit.HTTP{Method: r.Method, Scheme: r.Scheme, Path: r.Path, Status: r.Status}
	}
	word := ""
	switch r.Outcome {
	case decision.Allowed:
		word, e.Action, e.Disposition = "allowed", audit.ActionAllowed, audit.DispositionAllowed
	case decision.Audited:
		word, e.Action, e.Disposition = "audit", audit.ActionAllowed, audit.DispositionLogged
	case decision.Logged:
		word, e.Action, e.Disposition = "audit-allow", audit.ActionAllowed, audit.DispositionLogged
	default:
		word, e.Action, e.Disposition = "denied", audit.ActionDenied, audit.DispositionBlocked
		if r.Kind == proxy.Connect || r.Kind == proxy.Raw {
			e.Activity = "REFUSE"
		}
	}
	e.Message = message(r, word)
	return e
}

func message(r proxy.Record, word string) string {
	target := net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
	text := fmt.Sprintf("CONNECT %s %s", word, target)
	if r.UDP {
		text = fmt.Sprintf("UDP %s %s", word, target)
	}
	switch r.Kind {
	case proxy.Request:
		text = fmt.Sprintf("L7_REQUEST %s %s %s%s", word, r.Method, target, r.Path)
	case proxy.Message:
		text = fmt.Sprintf("L7_MESSAGE %s %s %s%s", word, r.Method, target, r.Path)
	}
	if r.Outcome == decision.Logged {
		text += " (permissive)"
	}
	return text
}

func processOf(p identity.Process) *audit.Process {
	if p.PID == 0 {
		return nil
	}
	return &audit.Process{PID: p.PID, Path: p.Path, SHA256: p.SHA256, Ancestors: p.Ancestors}
}

func denialOf(r proxy.Record) learn.Denial {
	kinds := map[proxy.Kind]learn.Kind{
		proxy.Connect: learn.KindConnect, proxy.Raw: learn.KindRaw,
		proxy.Request: learn.KindHTTP, proxy.Message: learn.KindMessage,
	}
	return learn.Denial{
		Time: r.Time, Permissive: r.Outcome == decision.Logged, Layer: r.Layer,
		Host: r.Host, Port: r.Port, Protocol: transport(r),
		Binary: r.Process.Path, SHA256: r.Process.SHA256, Ancestors: r.Process.Ancestors,
		Reason: r.Reason, Kind: kinds[r.Kind], Method: r.Method, Path: r.Path, Status: r.Status,
		L7: r.Protocol, EndpointPath: r.EndpointPath, Missing: r.Missing,
		TLS: r.TLS, TLSSkip: r.TLSSkip, TLSFault: r.TLSFault, IPs: r.Addrs,
	}
}

func transport(r proxy.Record) string {
	if r.UDP {
		return policy.ProtocolUDP
	}
	return policy.ProtocolTCP
}

// recordName records a name that was kept from leaving.
// Refused implements names.Gate.
func (s *Sandbox) Refused(name string) {
	s.record(audit.Event{
		Class: audit.ClassDNS, Activity: "QUERY", Action: audit.ActionDenied, Disposition: audit.DispositionBlocked,
		Severity: audit.SeverityLow, Host: name, Port: 53, Engine: "dns",
		Reason: "no rule names this host", Message: "DNS denied " + name,
	})
}

func (s *Sandbox) recordStart(p *policystore.Policies) {
	base := p.BaseFile
	if base == "" {
		base = "the built-in default"
	}
	text := fmt.Sprintf("sandbox started, policy %s from %s with %d learned rules", p.Name, base, len(p.Learned.Network))
	severity := audit.SeverityInformational
	switch {
	case s.landlock == confine.NoLandlock:
		text += "; the kernel has no Landlock: files are not protected"
		severity = audit.SeverityMedium
	case s.config.Confinement.NestedSandboxes && !insists(p):
		text += "; confinement.nested_sandboxes is true: files are not protected, for that needs Landlock, under which nobody mounts"
		severity = audit.SeverityMedium
	}
	if s.mode.permissive() {
		text += fmt.Sprintf("; PERMISSIVE for %s: network denials are logged but not enforced, Landlock is not applied",
			s.request.TTL)
		severity = audit.SeverityMedium
	}
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "START", Severity: severity, Message: text})
}

// recordPermissive reminds of a sandbox that was left permissive.
func (s *Sandbox) recordPermissive(left time.Duration) {
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "PERMISSIVE", Severity: audit.SeverityMedium,
		Message: fmt.Sprintf("sandbox is PERMISSIVE for another %s: network denials are logged but not enforced, Landlock is not applied",
			left.Round(time.Second))})
}

// prune removes the logs of sandboxes that ended long ago.
func (s *Sandbox) prune() {
	if err := audit.Prune(s.config.StateDir, s.config.Audit.KeepDays, time.Now()); err != nil {
		s.recordError("old logs were not removed", err)
	}
}

func (s *Sandbox) recordStop() {
	s.record(audit.Event{Class: audit.ClassLifecycle, Activity: "STOP", Message: "sandbox ended"})
}

func (s *Sandbox) recordError(what string, err error) {
	if s.log == nil {
		return // it is not open yet; Start returns the error that matters
	}
	s.record(audit.Event{Class: audit.ClassConfig, Activity: "FAILED", Severity: audit.SeverityHigh,
		Message: fmt.Sprintf("%s: %v", what, err)})
}
