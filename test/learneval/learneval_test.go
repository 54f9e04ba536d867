// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/policy/httptarget"
)

func sample(t testing.TB) []*API {
	t.Helper()
	apis, err := Load("testdata/apis.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if len(apis) < 20 {
		t.Fatalf("%d APIs", len(apis))
	}
	return apis
}

// The figures on a sample of the descriptions must not get worse. `make learn-eval` measures all.
func TestFiguresHold(t *testing.T) {
	apis := sample(t)
	for _, c := range []struct {
		sampling Sampling
		coverage float64
		over     float64
	}{
		{Sampling{K: 3}, 0.93, 0.012},
		{Sampling{K: 10}, 0.955, 0.02},
		{Sampling{K: 10, Distinct: true}, 0.95, 0.025},
	} {
		means, operations := Mean(EvaluateAll(apis, OpenShell, c.sampling))
		t.Logf("%+v: over APIs %+v, over operations %+v", c.sampling, means, operations)
		if means.Coverage < c.coverage || means.Over > c.over {
			t.Errorf("%+v: coverage %.3f, want at least %.3f; over-permission %.4f, want at most %.4f",
				c.sampling, means.Coverage, c.coverage, means.Over, c.over)
		}
	}
}

// The learners to compare with are what they are taken for, and the measure tells them apart.
func TestMeasureTellsLearnersApart(t *testing.T) {
	apis := sample(t)
	score := func(l Learner) Score {
		means, _ := Mean(EvaluateAll(apis, l, Sampling{K: 3}))
		return means
	}
	exact, all := score(Simple[0]), score(Learner{"all", func([]Request) []Rule { return []Rule{{"GET", "/**"}} }})
	if exact.Over > 0.01 || exact.Coverage > 0.6 {
		t.Errorf("exact: %+v", exact)
	}
	if all.Over < 0.4 {
		t.Errorf("all of GET: %+v", all)
	}
	if templates := score(Templates); templates.Coverage < 0.97 {
		t.Errorf("the templates: %+v", templates)
	}
}

// The matcher decides as the policy engine.
func TestMatcherIsThePolicys(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	allowed, refused := 0, 0
	for _, api := range sample(t) {
		v := newValues(api, 7)
		var requests []Request
		for i := range api.Operations {
			requests = append(requests, Request{api.Operations[i].Method, v.instance(&api.Operations[i])})
		}
		rules := append(OpenShell.Learn(requests[:len(requests)/2]), templates(api.Operations[:1])...)
		m := newMatcher(rules)
		endpoint := policy.Endpoint{Host: "h.example", Ports: []uint16{443}, Protocol: policy.ProtocolREST, Enforcement: policy.EnforcementEnforce, AllowEncodedSlash: true}
		for _, r := range rules {
			endpoint.Rules = append(endpoint.Rules, policy.L7Allow{Allow: policy.L7Match{Method: r.Method, Path: r.Path}})
		}
		rule := &policy.Rule{Name: "r", Endpoints: []policy.Endpoint{endpoint}, Binaries: []policy.Binary{{Path: "/b"}}}
		compiled, err := engine.Compile(&policy.Policy{Version: 1, Network: map[string]*policy.Rule{"r": rule}}, engine.Options{})
		if err != nil {
			t.Fatalf("%s: %v", api.Name, err)
		}
		connection := compiled.Connect(engine.Connection{Binary: "/b", Host: "h.example", Port: 443})
		for range 200 {
			i := rng.IntN(len(api.Operations))
			r := Request{api.Operations[i].Method, v.instance(&api.Operations[i])}
			want := connection.Request(engine.Request{Method: r.Method, Path: r.Path}).Decision == engine.Allow
			if got := m.allows(r); got != want {
				t.Fatalf("%s: %v is allowed: %v, by the policy %v", api.Name, r, got, want)
			}
			if want {
				allowed++
			} else {
				refused++
			}
		}
	}
	if allowed < 100 || refused < 100 {
		t.Errorf("%d allowed, %d refused", allowed, refused)
	}
}

// Values are spelt as rules are, and of the parameter's kind.
func TestValues(t *testing.T) {
	api := &API{Name: "x/y"}
	v := newValues(api, 0)
	for name, c := range map[string]struct {
		schema Schema
		want   string
	}{
		"kind":    {Schema{Enum: []string{"a", "b"}}, `^[ab]$`},
		"id":      {Schema{Format: "uuid"}, `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`},
		"number":  {Schema{Type: "integer"}, `^[0-9]+$`},
		"code":    {Schema{Type: "string", Pattern: "^[A-Z]{3}-[0-9]{4}$"}, `^[A-Z]{3}-[0-9]{4}$`},
		"example": {Schema{Type: "string", Example: "ord-1234"}, `^ord-[0-9]{4}$`},
		"email":   {Schema{Type: "string"}, `^[^@]+@[^@]+$`},
	} {
		for range 50 {
			if got := v.value(name, c.schema); !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	o := Operation{Method: "GET", Path: "/a/{branch}.json/{+rest}"}
	for range 50 {
		target := v.instance(&o)
		if parsed, err := httptarget.Parse("GET", target); err != nil || parsed.Path() != target || strings.Contains(target, "{") {
			t.Errorf("%q: %q, %v", target, parsed.Path(), err)
		}
	}
}

func TestParse(t *testing.T) {
	api, err := Parse("p/a", []byte(`{"openapi":"3.0.0","servers":[{"url":"https://h.example/{stage}/v1","variables":{"stage":{"default":"live"}}}],
		"paths":{"/u/{id}":{"parameters":[{"$ref":"#/components/parameters/Id"}],"get":{},"delete":{}},"/#Action=x":{"post":{}},"/#Action=y":{"post":{}},
		"/k/{kind}":{"get":{"parameters":[{"name":"kind","in":"path","schema":{"$ref":"#/components/schemas/Kind"}},{"name":"q","in":"query"}]}}},
		"components":{"parameters":{"Id":{"name":"id","in":"path","schema":{"type":"string","format":"uuid"}}},"schemas":{"Kind":{"type":"string","enum":["a",1]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(api.Operations) != 4 || api.Operations[0].Path != "/live/v1/" || api.Operations[3].Path != "/live/v1/u/{id}" {
		t.Errorf("%+v", api.Operations)
	}
	if id := api.schema(&api.Operations[3], "id"); id.Format != "uuid" {
		t.Errorf("%+v", id)
	}
	if kind := api.schema(&api.Operations[1], "kind"); len(kind.Enum) != 2 || kind.Enum[1] != "1" {
		t.Errorf("%+v", kind)
	}
}
