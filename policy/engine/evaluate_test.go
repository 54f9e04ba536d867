// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

// The cases are in testdata, in the form in which they come from outside: a
// policy, and for each request the decision, enforcing and permissive.
func TestEvaluate(t *testing.T) {
	data, err := os.ReadFile("../testdata/evaluate.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	engines := map[string]*Engine{}
	for line := range bytes.Lines(data) {
		var tt struct {
			Policy     string
			Request    EvalRequest
			Enforcing  EvalDecision
			Permissive *EvalDecision // absent: the same
		}
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&tt); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		e := engines[tt.Policy]
		if e == nil {
			e = mustCompile(t, policytest.Load(t, "policies/"+tt.Policy+".yaml"))
			engines[tt.Policy] = e
		}
		want := map[bool]EvalDecision{false: tt.Enforcing, true: tt.Enforcing}
		if tt.Permissive != nil {
			want[true] = *tt.Permissive
		}
		for permissive, want := range want {
			got, err := e.Evaluate(tt.Request, permissive)
			if err != nil {
				t.Errorf("%s%v", line, err)
				continue
			}
			reason := strings.HasPrefix(got.Reason, want.Reason) && (want.Reason != "") == (got.Reason != "")
			got.Reason = want.Reason
			if got != want || !reason {
				t.Errorf("%spermissive %v: got %+v, want %+v", line, permissive, got, want)
			}
		}
	}
}

func TestEvaluateMalformed(t *testing.T) {
	e := mustCompile(t, policy.Default())
	tests := map[string]string{
		`{"host":"h","port":1}`:                                                                     "binary is required",
		`{"binary":"/b","port":1}`:                                                                  "host is required",
		`{"binary":"/b","host":"h"}`:                                                                "port is required",
		`{"binary":"/b","host":"h","port":1,"protocol":"icmp"}`:                                     "protocol must be tcp or udp",
		`{"binary":"/b","host":"h","port":1,"resolved_ips":[""]}`:                                   "resolved_ips",
		`{"binary":"/b","host":"h","port":1,"http":{}}`:                                             "http needs a method and a target",
		`{"binary":"/b","host":"h","port":1,"graphql":{}}`:                                          "need http",
		`{"binary":"/b","host":"h","port":1,"protocol":"udp","http":{"method":"GET","target":"/"}}`: "http needs protocol tcp",
	}
	for text, want := range tests {
		var r EvalRequest
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Evaluate(r, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

// A field that is null is one that is absent.
func TestEvaluateNull(t *testing.T) {
	e := engine(t, "r:\n  endpoints: [{ host: h.example, port: 443, protocol: rest, enforcement: enforce, access: full }]\n")
	for _, text := range []string{
		`{"binary":"/b","host":"h.example","port":443,"ancestors":null,"protocol":null,"resolved_ips":null,"http":null,"websocket_text":null,"graphql":null,"jsonrpc": null }`,
		`{"binary":"/b","host":"h.example","port":443,"http":{"method":"POST","target":"/"},"graphql":null,"jsonrpc":{}}`,
	} {
		var r EvalRequest
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatal(err)
		}
		if d, err := e.Evaluate(r, false); err != nil || d.Decision != "allow" {
			t.Errorf("%s: %+v, %v", text, d, err)
		}
	}
}

// A method that no HTTP request can have is refused in every mode.
func TestEvaluateMethod(t *testing.T) {
	e := engine(t, "r:\n  endpoints: [{ host: h.example, port: 443, protocol: rest, access: full }]\n")
	for method, want := range map[string]string{"PROPFIND": "allow", "M-SEARCH": "allow", "G T": "deny", "GET\r\nX: y": "deny", "GÉT": "deny", "G,T": "deny"} {
		for _, host := range []string{"h.example", "other.example"} {
			r := EvalRequest{Binary: "/b", Host: host, Port: 443, HTTP: &EvalHTTP{Method: method, Target: "/"}}
			d, err := e.Evaluate(r, true)
			if host != "h.example" && want == "allow" {
				want = "audit"
			}
			if err != nil || d.Decision != want {
				t.Errorf("%q to %s: %+v, %v, want %s", method, host, d, err, want)
			}
		}
	}
}
