// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/proxy/identity"
)

func TestNotes(t *testing.T) {
	denied := proxy.Record{Outcome: decision.Denied, Layer: proxy.LayerSSRF, Host: "a.test", Port: 443, Reason: "private", Process: identity.Process{Path: "/bin/x"}}
	note, ok := noteOf(denied)
	if want := (learn.Note{Kind: learn.NoteAddress, Host: "a.test", Port: 443, Binary: "/bin/x", Reason: "private"}); !ok || note != want {
		t.Errorf("note %+v, %v", note, ok)
	}
	for name, change := range map[string]func(*proxy.Record){
		"evidence": func(r *proxy.Record) { r.Evidence = true },
		"allowed":  func(r *proxy.Record) { r.Outcome = decision.Allowed },
		"a limit":  func(r *proxy.Record) { r.Layer = proxy.LayerLimit },
	} {
		r := denied
		change(&r)
		if note, ok := noteOf(r); ok {
			t.Errorf("%s: %+v", name, note)
		}
	}
}
