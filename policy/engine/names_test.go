// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"openshell.ai/openshell/policy"
)

// The first keys are those that collecting and sorting all would give.
func TestRulesFor(t *testing.T) {
	hosts := []string{"a.example.com", "*.example.com", "**.example.com", "a*.example.com", "", "b.example.com", "10.0.0.1"}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		p := &policy.Policy{Version: 1, Network: map[string]*policy.Rule{}}
		var named []string
		for i := range 12 {
			key, host := fmt.Sprintf("r%d", random.IntN(1000)), hosts[random.IntN(len(hosts))]
			ep := policy.Endpoint{Host: host, Port: 443}
			if host == "" {
				ep.AllowedIPs = []string{"10.0.0.0/8"}
			}
			if i%5 == 0 {
				ep.Port = 80
			}
			p.Network[key] = &policy.Rule{Endpoints: []policy.Endpoint{ep, ep}, Binaries: []policy.Binary{{Path: "/bin/a"}}}
		}
		for key, r := range p.Network {
			if ep := r.Endpoints[0]; ep.Port == 443 && ep.Host != "b.example.com" && ep.Host != "10.0.0.1" {
				named = append(named, key)
			}
		}
		slices.Sort(named)
		e := mustCompile(t, p)
		for n := range 14 {
			want := named[:min(n, len(named))]
			if got := e.rulesFor("a.example.com", policy.Service{Port: 443}, n); !slices.Equal(got, want) {
				t.Fatalf("seed %d: the first %d keys are %v, not %v", seed, n, got, want)
			}
		}
	}
}
