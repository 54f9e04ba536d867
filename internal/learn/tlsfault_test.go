// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// An origin's TLS that cannot be ended makes a rule for whole connections only where no request was ever
// seen: whoever can show a bad certificate must not have the rest let through.
func TestOriginFaultWidensNothing(t *testing.T) {
	fault := with(connect(), func(d *Denial) {
		d.Kind, d.TLS, d.TLSSkip, d.TLSFault = KindRaw, "spliced", true, "certificate signed by unknown authority"
	})
	for name, runs := range map[string][][]Denial{
		"request, fault":               {{request1("GET", "/a"), fault}},
		"fault, request":               {{fault, request1("GET", "/a")}},
		"in runs of their own":         {{request1("GET", "/a")}, {fault}},
		"in runs of their own, turned": {{fault}, {fault, request1("GET", "/a")}, {fault}},
	} {
		store := state.Open(t.TempDir())
		for i, denials := range runs {
			learnFrom(t, store, permissiveRun("r"+string(rune('1'+i))), denials...)
		}
		p := one(t, store)
		if e := p.Rule.Endpoints[0]; e.TLS != "" || len(e.Rules) != 1 || !strings.Contains(strings.Join(p.SecurityNotes, "\n"), "unknown authority") {
			t.Errorf("%s: %+v, %q", name, e, p.SecurityNotes)
		}
	}
	store := state.Open(t.TempDir())
	for _, run := range []string{"r1", "r2"} {
		learnFrom(t, store, permissiveRun(run), fault)
		if p := one(t, store); p.Rule.Endpoints[0].TLS != policy.TLSSkip || !strings.Contains(strings.Join(p.SecurityNotes, "\n"), "unknown authority") {
			t.Errorf("%s: %+v, %q", run, p.Rule.Endpoints[0], p.SecurityNotes)
		}
	}
}
