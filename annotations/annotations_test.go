// SPDX-License-Identifier: Apache-2.0

package annotations

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/validname"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		in   map[string]string
		want Request
	}{
		{"none", nil, Request{}},
		{"of others", map[string]string{"io.kubernetes.cri.container-type": "sandbox", "openshell.aix/y": "z"}, Request{}},
		{"policy", map[string]string{KeyPolicy: "agent"}, Request{Policy: "agent"}},
		{"all", map[string]string{
			KeyPolicy: "team.agent_2", KeyPermissive: "true", KeyPermissiveTTL: "90m",
			KeyPermissiveOnExpiry: "stop",
		}, Request{Policy: "team.agent_2", Permissive: true, TTL: 90 * time.Minute, OnExpiry: OnExpiryStop}},
		{"permissive false", map[string]string{KeyPermissive: "false"}, Request{}},
		{"on expiry enforce", map[string]string{KeyPermissive: "true", KeyPermissiveOnExpiry: "enforce"},
			Request{Permissive: true, OnExpiry: OnExpiryEnforce}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name string
		in   map[string]string
		want []string // parts of the message
	}{
		{"empty policy", map[string]string{KeyPolicy: ""}, []string{`openshell.ai/policy=""`, "must not be empty"}},
		{"policy with a path", map[string]string{KeyPolicy: "../agent"}, []string{`"../agent"`, "must start with a letter or digit"}},
		{"permissive yes", map[string]string{KeyPermissive: "yes"}, []string{`openshell.ai/permissive="yes"`, `use "true" or "false"`}},
		{"permissive TRUE", map[string]string{KeyPermissive: "TRUE"}, []string{`use "true" or "false"`}},
		{"ttl without unit", map[string]string{KeyPermissive: "true", KeyPermissiveTTL: "3600"}, []string{`permissive-ttl="3600"`, "positive duration"}},
		{"ttl zero", map[string]string{KeyPermissive: "true", KeyPermissiveTTL: "0s"}, []string{"positive duration"}},
		{"ttl negative", map[string]string{KeyPermissive: "true", KeyPermissiveTTL: "-1h"}, []string{"positive duration"}},
		{"ttl overflowing", map[string]string{KeyPermissive: "true", KeyPermissiveTTL: "9999999h"}, []string{"positive duration"}},
		{"ttl without permissive", map[string]string{KeyPermissiveTTL: "1h"}, []string{`permissive-ttl="1h"`, "without openshell.ai/permissive=true"}},
		{"ttl with permissive false", map[string]string{KeyPermissive: "false", KeyPermissiveTTL: "1h"}, []string{"without openshell.ai/permissive=true"}},
		{"on expiry without permissive", map[string]string{KeyPermissiveOnExpiry: "stop"}, []string{"permissive-on-expiry", "without"}},
		{"on expiry unknown", map[string]string{KeyPermissive: "true", KeyPermissiveOnExpiry: "kill"}, []string{`="kill"`, `use "enforce" or "stop"`}},
		{"typing error", map[string]string{Prefix + "permisive": "true"}, []string{"openshell.ai/permisive", "did you mean openshell.ai/permissive?"}},
		{"underscore", map[string]string{Prefix + "permissive_ttl": "1h"}, []string{"did you mean openshell.ai/permissive-ttl?"}},
		{"case", map[string]string{Prefix + "Policy": "a"}, []string{"did you mean openshell.ai/policy?"}},
		{"nothing near", map[string]string{Prefix + "frobnicate": "1"}, []string{`unknown annotation "openshell.ai/frobnicate"`, KeyPolicy, KeyPermissiveOnExpiry}},
		{"bare prefix", map[string]string{Prefix: "1"}, []string{"unknown annotation"}},
		{"several at once", map[string]string{KeyPermissive: "1", KeyPolicy: "-"}, []string{KeyPermissive, KeyPolicy}},
		{"hostile value", map[string]string{KeyPolicy: "a\n\x1b[2J" + strings.Repeat("x", 1<<20)}, []string{`\n\x1b[2J`, "..."}},
		{"hostile key", map[string]string{Prefix + strings.Repeat("policy", 1<<16) + "\n": "a"}, []string{"unknown annotation"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if !reflect.DeepEqual(got, Request{}) {
				t.Errorf("a request comes with the error: %+v", got)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1024 {
				t.Errorf("error is not one clear line: %q", err)
			}
		})
	}
}

// FuzzParse: an image may carry any annotation, and its author sees the error.
func FuzzParse(f *testing.F) {
	f.Add(KeyPolicy, "agent", "true", "1h")
	f.Add(Prefix+"polciy", "agent\n", "false", "-1h")
	f.Fuzz(func(t *testing.T, key, value, permissive, ttl string) {
		req, err := Parse(map[string]string{key: value, KeyPermissive: permissive, KeyPermissiveTTL: ttl})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("error spans lines or moves the cursor: %q", err)
			}
			return
		}
		if !req.Permissive || req.TTL <= 0 {
			t.Errorf("a TTL was accepted without permissive mode: %+v", req)
		}
		if req.Policy != "" && validname.Check(req.Policy) != nil {
			t.Errorf("policy %q was accepted", req.Policy)
		}
	})
}
