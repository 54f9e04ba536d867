// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/proxy"
)

// noteOf is what the learner counts of a refusal that no rule can be learned from. It is false for
// what is evidence, and for what says nothing about what the workload needs.
func noteOf(r proxy.Record) (learn.Note, bool) {
	kinds := map[string]learn.NoteKind{
		proxy.LayerSSRF: learn.NoteAddress, proxy.LayerUpstream: learn.NoteDial, proxy.LayerHTTP: learn.NoteMalformed,
		proxy.LayerAuthority: learn.NoteMalformed, proxy.LayerIdentity: learn.NoteIdentity, proxy.LayerTLS: learn.NoteTLS,
		proxy.LayerL4: learn.NoteForbidden, proxy.LayerL7: learn.NoteForbidden,
	}
	kind, ok := kinds[r.Layer]
	if !ok || r.Evidence || r.Outcome != decision.Denied {
		return learn.Note{}, false
	}
	return learn.Note{Kind: kind, Host: r.Host, Port: r.Port, Binary: r.Process.Path, Reason: r.Reason}, true
}
