// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// ProposalVersion is the format of a proposal.
const ProposalVersion = "openshell.ai/proposal/v1"

// The states of a proposal.
const (
	StatusPending    = "pending"
	StatusApproved   = "approved"
	StatusRejected   = "rejected"
	StatusSuperseded = "superseded"
)

// Proposal is a rule that would make a set of denials allowed, with what a person needs to
// decide on it.
type Proposal struct {
	Version string `json:"version"`
	ID      string `json:"id"`
	Policy  string `json:"policy"`
	Kind    string `json:"kind"`
	Status  string `json:"status"`

	RuleName string `json:"rule_name"` // the rule's key in the learned policy
	Edit            // what is proposed
	Digest   string `json:"digest"` // of it: what an approval approves
	// InForce are the paths that approving the proposal has added to the learned policy.
	InForce *policy.Filesystem `json:"in_force,omitempty"`
	// Tightened is what a reviewer approved in place of the proposal, while it is in force.
	Tightened *Edit `json:"tightened,omitempty"`

	Binary       string   `json:"binary"` // empty for files: see their evidence
	BinarySHA256 string   `json:"binary_sha256,omitempty"`
	Ancestors    []string `json:"ancestors,omitempty"`

	Rationale     string   `json:"rationale"`
	SecurityNotes []string `json:"security_notes"` // for people only
	Flags         Flags    `json:"flags"`
	Confidence    float64  `json:"confidence"`

	Provenance Provenance       `json:"provenance"`
	Evidence   ProposalEvidence `json:"evidence"`

	DecidedAt       *time.Time `json:"decided_at,omitempty"`
	DecidedBy       string     `json:"decided_by,omitempty"`
	RejectionReason string     `json:"rejection_reason,omitempty"`
	SupersededBy    string     `json:"superseded_by,omitempty"`
}

// Provenance says where a proposal comes from.
type Provenance struct {
	Mode             string        `json:"mode"` // agent; or permissive, if one of the runs was; or enforcing
	Runs             []RunEvidence `json:"runs"` // the latest maxRuns
	BasePolicySHA256 string        `json:"base_policy_sha256,omitempty"`
	TTL              string        `json:"ttl,omitempty"`
}

// RunEvidence is one run's part in a proposal.
type RunEvidence struct {
	Run       string    `json:"run"`
	Sandbox   string    `json:"sandbox"`
	Image     string    `json:"image"`
	Hits      int       `json:"hits"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
}

// ProposalEvidence is what was seen, for people: a bounded selection, made fit to show.
// The rule covers all that was seen, whether or not it is here.
type ProposalEvidence struct {
	Hits        int            `json:"hits"`
	Reasons     map[string]int `json:"reasons"`
	Samples     []Sample       `json:"samples"`
	ResolvedIPs []string       `json:"resolved_ips"`
	TLS         string         `json:"tls,omitempty"` // terminated, spliced or none; empty: no content was seen
	// TLSFault is why the origin's TLS could not be ended by the proxy.
	TLSFault string `json:"tls_fault,omitempty"`

	// What was seen of each endpoint, in a general form without secrets.
	Endpoints []EndpointRequests `json:"endpoints,omitempty"`

	// Of files: the tree that the proposal is for, and what was done in it. What is deeper than
	// FilesCut names, if that is not 0, was granted by its directory: there was too much.
	Tree     string    `json:"tree,omitempty"`
	Files    []FileUse `json:"files,omitempty"`
	FilesCut int       `json:"files_cut,omitempty"`
}

// Sample is one kind of HTTP request that was seen.
type Sample struct {
	Method string `json:"method"`
	Path   string `json:"path"` // secrets are shown as *
	Count  int    `json:"count"`
	Status int    `json:"status,omitempty"` // the lowest that was answered
}

// newProposal is the first proposal for the evidence, or false where no valid rule can be built.
func newProposal(e *Evidence) (Proposal, bool) {
	name := e.target.kind()
	p := Proposal{
		Version: ProposalVersion, ID: e.id, Policy: e.policy, Kind: name, Status: StatusPending, RuleName: e.ruleName(),
	}
	return p, p.rebuild(e) == nil
}

// grow adds evidence to a proposal and reports whether its rule changed. What was decided on the
// rule that it had does not hold for another one: the proposal is pending again then.
func (p *Proposal) grow(e *Evidence) (bool, error) {
	all, err := p.evidence()
	if err != nil {
		return false, err
	}
	all.merge(e)
	before := p.Digest
	if err := p.rebuild(all); err != nil {
		return false, fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	if p.Digest == before {
		return false, nil
	}
	p.Status, p.DecidedAt, p.DecidedBy, p.SupersededBy = StatusPending, nil, "", ""
	return true, nil
}

// rebuild makes the rule and all else anew from all the evidence.
func (p *Proposal) rebuild(e *Evidence) error {
	p.Flags = Flags{Truncated: e.truncated, Inexpressible: e.inexpressible, Replaced: e.replaced}
	p.describeEvidence(e)
	return p.kind().build(p, e)
}

func (p *Proposal) describeEvidence(e *Evidence) {
	p.Provenance = Provenance{
		Mode: ModeEnforcing,
		Runs: slices.SortedFunc(maps.Values(e.runs), func(a, b RunEvidence) int {
			return cmp.Or(a.FirstSeen.Compare(b.FirstSeen), cmp.Compare(a.Run, b.Run))
		}),
		BasePolicySHA256: e.latest.basePolicySHA256,
		TTL:              e.latest.ttl,
	}
	if e.permissive {
		p.Provenance.Mode = ModePermissive
	}
	p.Evidence = ProposalEvidence{
		Hits: e.hits, Reasons: e.reasons, TLS: e.tls, TLSFault: e.tlsFault, Endpoints: e.stored(),
		Samples:     []Sample{},
		ResolvedIPs: []string{},
	}
	for _, key := range slices.SortedFunc(maps.Keys(e.samples), request.compare) {
		p.Evidence.Samples = append(p.Evidence.Samples, e.samples[key])
	}
	for _, ip := range e.ips {
		p.Evidence.ResolvedIPs = append(p.Evidence.ResolvedIPs, ip.String())
	}
}

// check reports what makes a proposal unfit to be used.
func (p *Proposal) check() error {
	if err := state.CheckVersion(p.Version, ProposalVersion); err != nil {
		return fmt.Errorf("proposal %s: %w", p.ID, err)
	}
	if idOfRule(p.RuleName) != p.ID {
		return fmt.Errorf("proposal %s: rule_name %q: must end in the id", p.ID, p.RuleName)
	}
	if err := p.checkKind(); err != nil {
		return err
	}
	if err := p.kind().check(p); err != nil {
		return err
	}
	return p.checkTightened()
}

// learned reports whether the proposal is made from denials, not from what a workload asked for.
func (p *Proposal) learned() bool { return p.Provenance.Mode != ModeAgent }

func (p *Proposal) endpoints() []policy.Endpoint {
	if p.Rule == nil {
		return nil
	}
	return p.Rule.Endpoints
}

// oneService reports whether all endpoints are for the same host and the same one port.
func oneService(endpoints []policy.Endpoint) bool {
	for i := range endpoints {
		if e := &endpoints[i]; len(e.Ports) != 1 || e.Ports[0] != endpoints[0].Ports[0] || e.Host != endpoints[0].Host {
			return false
		}
	}
	return true
}

// target is what the denials are about that the proposal is made from.
func (p *Proposal) target() target { return p.kind().target(p) }

// evidence is what the proposal was made from, as far as more evidence can change it.
func (p *Proposal) evidence() (*Evidence, error) {
	e := newEvidence(p.Policy, p.target())
	e.id = p.ID
	e.tls = p.Evidence.TLS
	e.inexpressible, e.truncated, e.replaced = p.Flags.Inexpressible, p.Flags.Truncated, p.Flags.Replaced
	p.kind().restore(p, e)
	e.permissive = p.Provenance.Mode == ModePermissive
	e.sha256, e.ancestors = p.BinarySHA256, p.Ancestors
	e.hits = p.Evidence.Hits
	for reason, n := range p.Evidence.Reasons {
		e.addReason(reason, n)
	}
	for _, s := range p.Evidence.Samples {
		e.addSample(s)
	}
	for _, text := range p.Evidence.ResolvedIPs {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("proposal %s: evidence.resolved_ips: %w", p.ID, err)
		}
		e.addIP(ip)
	}
	for _, r := range p.Provenance.Runs {
		e.addRun(r)
		if r.LastSeen.After(e.latest.seen) {
			e.latest.seen = r.LastSeen
		}
	}
	e.latest.basePolicySHA256, e.latest.ttl = p.Provenance.BasePolicySHA256, p.Provenance.TTL
	return e, nil
}
