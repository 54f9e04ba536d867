// SPDX-License-Identifier: Apache-2.0

package names

import (
	"context"
	"net/netip"
	"sync"

	"github.com/miekg/dns"
	"openshell.ai/openshell/netns"
)

// embedded is a resolver that the engine runs inside the sandbox's own namespace,
// as docker does at 127.0.0.11. It knows the names of other containers, and
// forwards all others from that same namespace, so that they come back to the
// sandbox's server: forwarding holds the questions that are on their way there.
type embedded struct {
	inner *netns.Namespace

	mu         sync.Mutex
	forwarding map[forwarded]int
}

// forwarded recognises a question that is forwarded: with its number.
type forwarded struct {
	id uint16
	question
}

// UseEmbedded has the engine's resolver in the inner namespace asked before all
// servers. It must be called before the first question.
func (u *Upstream) UseEmbedded(inner *netns.Namespace) {
	u.embedded = &embedded{inner: inner, forwarding: make(map[forwarded]int)}
}

// askEmbedded returns what the engine's resolver answers, nil where there is none
// or it fails.
func (u *Upstream) askEmbedded(ctx context.Context, msg *dns.Msg) *dns.Msg {
	e := u.embedded
	if e == nil {
		return nil
	}
	f := forwarded{msg.Id, question{msg.Question[0].Name, msg.Question[0].Qtype}}
	e.count(f, 1)
	defer e.count(f, -1)
	answer, err := u.exchange(ctx, msg, netip.AddrPortFrom(netns.EngineResolver, 53), e.inner.DialUnintercepted)
	if err != nil {
		return nil
	}
	return answer
}

func (e *embedded) count(f forwarded, change int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.forwarding[f] += change; e.forwarding[f] <= 0 {
		delete(e.forwarding, f)
	}
}

// Forwarded answers a question that the engine's resolver passes on, with what
// the servers outside say. It returns nil for any other: a workload's. One that
// guesses the number of a question on its way learns the answer to it, which it
// had asked for and was allowed.
func (u *Upstream) Forwarded(ctx context.Context, query *dns.Msg) *dns.Msg {
	e := u.embedded
	if e == nil || len(query.Question) != 1 {
		return nil
	}
	q := question{dns.CanonicalName(query.Question[0].Name), query.Question[0].Qtype}
	e.mu.Lock()
	_, ok := e.forwarding[forwarded{query.Id, q}]
	e.mu.Unlock()
	if !ok {
		return nil
	}
	answer, err := u.askServers(ctx, query)
	if err != nil {
		return new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
	}
	answer.Id = query.Id
	return answer
}
