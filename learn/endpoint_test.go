package learn

import (
	"fmt"
	"reflect"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/state"
)

// lacking is a denial of a declared endpoint's rules.
func lacking(protocol, path string, missing ...policy.L7Match) Denial {
	return with(request1("POST", "/api/x"), func(d *Denial) {
		d.Layer, d.L7, d.EndpointPath, d.Missing = "l7", protocol, path, missing
	})
}

func TestDeclaredEndpoints(t *testing.T) {
	p := proposeOne(t,
		request1("GET", "/a"),
		lacking("rest", "/api/**", policy.L7Match{Method: "POST", Path: "/api/x/550e8400-e29b-41d4-a716-446655440000"}),
		lacking("rest", "/api/**", policy.L7Match{Method: "DELETE", Path: "/api/x"}, policy.L7Match{Method: "GET", Path: "/api/x"}),
		raw(), // elsewhere the policy declares nothing, which no rule can bring back here
	)
	allow := func(method, path string) policy.L7Allow {
		return policy.L7Allow{Allow: policy.L7Match{Method: method, Path: path}}
	}
	want := []policy.Endpoint{
		{Host: "api.github.com", Ports: []uint16{443}, Protocol: "rest", Enforcement: "enforce", Rules: []policy.L7Allow{allow("GET", "/a")}},
		{Host: "api.github.com", Ports: []uint16{443}, Protocol: "rest", Enforcement: "enforce", Path: "/api/**",
			Rules: []policy.L7Allow{allow("DELETE", "/api/x"), allow("GET", "/api/x"), allow("POST", "/api/x/*")}},
	}
	if !reflect.DeepEqual(p.Rule.Endpoints, want) {
		t.Errorf("endpoints %+v\nwant %+v", p.Rule.Endpoints, want)
	}
}

func TestNoRuleHelps(t *testing.T) {
	for name, d := range map[string]Denial{
		"a deny rule":               lacking("rest", "/api/**"),
		"a literal star":            lacking("rest", "", policy.L7Match{Method: "GET", Path: "/a/*"}),
		"one of several has a star": lacking("rest", "", policy.L7Match{Method: "GET", Path: "/a"}, policy.L7Match{Method: "GET", Path: "/*"}),
	} {
		if got := proposeAll(d); len(got) != 0 {
			t.Errorf("%s: proposed %+v", name, got[0].Rule)
		}
	}
}

// What is stored brings all back that was learned.
func TestEndpointsAreRestored(t *testing.T) {
	store, runs := state.Open(t.TempDir()), 0
	see := func(denials ...Denial) Proposal {
		runs++
		learnFrom(t, store, permissiveRun(fmt.Sprintf("r%d", runs)), denials...)
		return one(t, store)
	}
	see(lacking("rest", "/api/**", policy.L7Match{Method: "GET", Path: "/api/a"}))
	see(request1("GET", "/b"))
	p := see(lacking("rest", "/v2/**", policy.L7Match{Method: "GET", Path: "/v2/c"}))
	if n := len(Grants(p.Rule)); n != 3 || len(p.Rule.Endpoints) != 3 {
		t.Errorf("rule %+v", p.Rule)
	}
	if again := see(lacking("rest", "/api/**", policy.L7Match{Method: "GET", Path: "/api/a"})); again.Digest != p.Digest {
		t.Errorf("rule %+v", again.Rule)
	}
}
