// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/netip"

	"openshell.ai/openshell/policy"
)

// grant is what a view makes of a connection: the effective policy's decision
// and the maximum policy's, which holds in every mode.
type grant struct {
	view  View
	match policy.Match
	most  policy.Match // without meaning where the view has no maximum
	// permissive is the view's mode, but for the destinations where it never
	// holds.
	permissive, never bool
}

// ruling is a decision in the form of the record that will tell it.
type ruling struct {
	Record
	malformed bool
}

// exceedsMaximum begins the reason of what only the maximum policy denies.
const exceedsMaximum = "exceeds the node's maximum policy: "

// neverPermissive begins the reason of what permissive mode would let through
// elsewhere.
const neverPermissive = "permissive mode never holds for this endpoint (permissive.never): "

func (v View) grant(c policy.Connection) *grant {
	g := &grant{view: v, match: v.Engine.Connect(c)}
	if v.Maximum != nil {
		g.most = v.Maximum.Connect(c)
	}
	g.never = v.Permissive && v.Never.Contain(c.Host, c.Port)
	g.permissive = v.Permissive && !g.never
	return g
}

// grant returns what a view makes of the flow's connection.
func (f *flow) grant(view View) *grant {
	if g := f.granted.Load(); g != nil && g.view == view {
		return g
	}
	g := view.grant(f.connection())
	f.granted.Store(g)
	return g
}

func (g *grant) capped() bool { return g.view.Maximum != nil }

// connection decides the connection itself.
func (g *grant) connection() ruling {
	r := Record{Kind: Connect, Layer: LayerL4, Reason: g.match.Reason}
	switch {
	case g.capped() && !g.most.Allowed:
		r.Reason = exceedsMaximum + g.most.Reason
	case g.match.Allowed:
		r.Outcome, r.Policy = Allowed, g.match.Policy
	case g.permissive:
		r.Outcome = Logged
	default:
		g.deny(&r)
	}
	return ruling{Record: r}
}

// deny makes a record of what the effective policy denies. It is evidence of what
// the policy lacks, unless the node's administrator has said that it is to stay
// denied.
func (g *grant) deny(r *Record) {
	if g.never {
		r.Reason, r.Missing = neverPermissive+r.Reason, nil
		return
	}
	r.Evidence = true
}

// inspects tells whether a policy wants each HTTP request decided, so that
// what is not HTTP has to be refused.
func (g *grant) inspects() bool { return g.match.Inspect || g.capped() && g.most.Inspect }

// mustSee tells whether the connection may not go on unseen. In permissive
// mode that is the maximum's to say alone.
func (g *grant) mustSee() bool {
	return g.inspects() && !g.permissive || g.capped() && g.most.Inspect
}

// mustSeeText is mustSee for the text of the WebSocket that a request opened.
func (g *grant) mustSeeText(r policy.Request) bool {
	return !g.permissive && g.match.Inspection(r).Text || g.capped() && g.most.Inspection(r).Text
}

// inspection tells how much of a request has to be seen to decide it.
func (g *grant) inspection(r policy.Request) policy.Inspection {
	i := g.match.Inspection(r)
	if g.capped() {
		most := g.most.Inspection(r)
		if i.MaxBody == 0 || most.MaxBody > 0 && most.MaxBody < i.MaxBody {
			i.MaxBody = most.MaxBody
		}
		i.Text = i.Text || most.Text
	}
	return i
}

// request decides a request.
func (g *grant) request(r policy.Request) ruling { return g.judgeRequest(r, g.match.Request(r)) }

// judgeRequest is request for one that the effective policy has decided.
func (g *grant) judgeRequest(r policy.Request, v policy.Verdict) ruling {
	most := policy.Verdict{Decision: policy.Allow}
	if g.capped() {
		most = g.most.Request(r)
	}
	return g.judge(Request, v, most)
}

// text decides a text message on the WebSocket that a request opened.
func (g *grant) text(r policy.Request, message []byte) ruling {
	most := policy.Verdict{Decision: policy.Allow}
	if g.capped() {
		most = g.most.Text(r, message)
	}
	return g.judge(Message, g.match.Text(r, message), most)
}

// judge makes one decision of the policies' verdicts and the mode. Permissive
// mode lets through what the effective policy denies, at every layer alike, but
// neither what cannot be read nor what the maximum denies; from these two there
// is nothing to learn.
func (g *grant) judge(kind Kind, v, most policy.Verdict) ruling {
	r := Record{Kind: kind, Layer: LayerL7, Policy: v.Policy, Reason: v.Reason,
		Protocol: v.Protocol, EndpointPath: v.Path, Missing: v.Missing}
	if !g.match.Allowed {
		r.Layer = LayerL4
	}
	switch {
	case v.Malformed:
	case most.Malformed:
		r.Reason, r.Protocol, r.Missing = most.Reason, most.Protocol, nil
	case most.Decision == policy.Deny:
		r.Reason, r.Missing = exceedsMaximum+most.Reason, nil
	case v.Decision == policy.Allow:
		r.Outcome = Allowed
	case v.Decision == policy.Audit:
		r.Outcome = Audited
	case g.permissive:
		r.Outcome, r.Evidence = Logged, true
	default:
		g.deny(&r)
	}
	return ruling{Record: r, malformed: v.Malformed || most.Malformed}
}

// checkAddress holds a resolved address against the guard of both policies.
func (f *flow) checkAddress(g *grant, a netip.Addr) error {
	err := g.match.CheckAddress(a, f.port)
	if err == nil && g.capped() {
		if err = g.most.CheckAddress(a, f.port); err != nil {
			return &policy.AddressError{Addr: a, Reason: exceedsMaximum + err.Error()}
		}
	}
	// Another name for an address does not open it.
	if view := g.view; err == nil && !g.match.Allowed && view.Permissive && view.Never != nil && view.Never.Contain(a.String(), f.port) {
		return &policy.AddressError{Addr: a, Reason: neverPermissive + g.match.Reason}
	}
	return err
}
