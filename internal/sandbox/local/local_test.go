// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"openshell.ai/openshell/policy"
)

// fake is a sandbox that keeps what it is asked.
type fake struct {
	mu       sync.Mutex
	proposed []Proposal
	results  []Submitted
	err      error
	statuses map[string]Status
	awaiting chan struct{}
	decided  chan struct{}
}

func (f *fake) Policy() *policy.Policy {
	return &policy.Policy{Version: 1, Network: map[string]*policy.Rule{"web": {Endpoints: []policy.Endpoint{{Host: "a.example", Port: 443}}}}}
}

func (f *fake) Denials(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("denial %d <&>", i))
	}
	return lines
}

func (f *fake) Propose(_ context.Context, p Proposal) ([]Submitted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.proposed = append(f.proposed, p)
	return f.results, f.err
}

func (f *fake) Status(id string) (Status, error) {
	s, ok := f.statuses[id]
	if !ok {
		return s, fmt.Errorf("%s: %w", id, fs.ErrNotExist)
	}
	return s, nil
}

func (f *fake) Await(ctx context.Context, id string) (Status, error) {
	if f.awaiting != nil {
		f.awaiting <- struct{}{}
		select {
		case <-ctx.Done():
		case <-f.decided:
		}
	}
	return f.Status(id)
}

func ask(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://policy.local"+target, strings.NewReader(body)))
	return w
}

const addRule = `{"intent_summary":"read the API","operations":[{"addRule":{"ruleName":"api","rule":{
	"endpoints":[{"host":"api.example","port":443,"protocol":"rest","enforcement":"enforce","rules":[{"allow":{"method":"GET","path":"/v1/*"}}]}],
	"binaries":[{"path":"/usr/bin/curl"}]}}}]}`

func TestRoutes(t *testing.T) {
	s := &fake{
		results:  []Submitted{{ID: "p-1", Accepted: true}, {Reason: "too wide"}, {ID: "p-2", Reason: "was rejected: no"}},
		statuses: map[string]Status{"p-1": {ID: "p-1", Status: "pending"}, "p-2": {ID: "p-2", Status: "approved", Loaded: true}, "p-3": {ID: "p-3", Status: "rejected", RejectionReason: "no"}},
	}
	h := Handler(s)
	const status = `"rule_name":"","binary":"","rejection_reason":"%s","validation_result":"","application_error":"","review_token":"","current_effective_policy_hash":"","candidate_effective_policy_hash":""`
	of := func(id, is, reason string) string {
		return fmt.Sprintf(`{"chunk_id":%q,"status":%q,`+status, id, is, reason)
	}
	for _, tt := range []struct {
		method, target, body string
		status               int
		want                 string // a part of the answer
	}{
		{"GET", "/", "", 200, "/v1/proposals"},
		{"GET", "/v1/policy/current", "", 200, `{"format":"yaml","policy_yaml":"version: 1\nnetwork_policies:\n`},
		{"GET", "/v1/denials", "", 200, `"denial 9 <&>"],"log_available":true}`},
		{"GET", "/v1/denials?last=2", "", 200, `{"denials":["denial 0 <&>","denial 1 <&>"],"log_available":true}`},
		{"GET", "/v1/denials?last=100", "", 200, `denial 99`},
		{"GET", "/v1/denials?last=101", "", 400, `{"error":"invalid_request","detail":"last: must be a number from 1 to 100"}`},
		{"GET", "/v1/denials?last=0", "", 400, "last"},
		{"GET", "/v1/denials?last=x", "", 400, "last"},
		{"GET", "/v1/denials?last=%zz", "", 400, "query"},
		{"POST", "/v1/proposals", addRule, 202, `{"status":"submitted","accepted_chunks":1,"rejected_chunks":2,"rejection_reasons":["too wide","p-2: was rejected: no"],"accepted_chunk_ids":["p-1"]}`},
		{"POST", "/v1/proposals", "{}", 400, `{"error":"invalid_proposal","detail":"operations: must be a list of 1 to 32"}`},
		{"POST", "/v1/proposals", strings.Repeat(" ", maxBody+1), 413, "payload_too_large"},
		{"GET", "/v1/proposals/p-1", "", 200, of("p-1", "pending", "") + "}"},
		{"GET", "/v1/proposals/p-9", "", 404, `{"error":"chunk_not_found"`},
		{"GET", "/v1/proposals/p-1/wait?timeout=1", "", 200, of("p-1", "pending", "") + `,"timed_out":true}`},
		{"GET", "/v1/proposals/p-2/wait", "", 200, of("p-2", "approved", "") + `,"policy_reloaded":true}`},
		{"GET", "/v1/proposals/p-3/wait", "", 200, of("p-3", "rejected", "no") + "}"},
		{"GET", "/v1/proposals/p-9/wait", "", 404, "chunk_not_found"},
		{"GET", "/v1/proposals/p-1/wait?timeout=301", "", 400, "timeout: must be a number from 1 to 300"},
		{"GET", "/v1/proposals/p-1/wait?timeout=0", "", 400, "timeout"},
		{"GET", "/v1/proposals", "", 405, `{"error":"method_not_allowed","detail":"use POST"}`},
		{"DELETE", "/v1/policy/current", "", 405, "use GET"},
		{"POST", "/v1/proposals/p-1/approve", "", 404, `{"error":"not_found"`},
		{"GET", "/v2", "", 404, "not_found"},
		{"GET", "/v1/proposals/a%2Fb", "", 404, "chunk_not_found"},
	} {
		w := ask(h, tt.method, tt.target, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.method, tt.target, w.Code, w.Body, tt.status, tt.want)
		}
		if tt.target != "/" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %s: not JSON: %s", tt.method, tt.target, w.Body)
		}
	}
	if len(s.proposed) != 1 || s.proposed[0].Intent != "read the API" || s.proposed[0].Operations[0].RuleName != "api" {
		t.Errorf("proposed %+v", s.proposed)
	}
}

func TestProposalErrors(t *testing.T) {
	for err, want := range map[error]struct {
		status int
		name   string
	}{
		ErrUnknownCaller:                   {403, "policy_denied"},
		&InvalidError{errors.New("wide")}:  {400, "invalid_proposal"},
		errors.New("/secret/path is full"): {503, "proposals_unavailable"},
	} {
		w := ask(Handler(&fake{err: err}), "POST", "/v1/proposals", addRule)
		if w.Code != want.status || !strings.Contains(w.Body.String(), want.name) || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
}

func TestDisabled(t *testing.T) {
	for _, target := range []string{"/", "/v1/policy/current", "/v1/proposals/p-1/wait", "/other"} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			if w := ask(Disabled(), method, target, addRule); w.Code != 404 || !strings.Contains(w.Body.String(), `{"error":"feature_disabled"`) {
				t.Errorf("%s %s: %d %s", method, target, w.Code, w.Body)
			}
		}
	}
}

func TestProposalsAreLimited(t *testing.T) {
	s := &fake{}
	h := Handler(s)
	refused := 0
	for range 2 * proposalBurst {
		if w := ask(h, "POST", "/v1/proposals", addRule); w.Code == 429 {
			refused++
			if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "too_many_requests") {
				t.Errorf("%v %s", w.Header(), w.Body)
			}
		}
	}
	if refused < proposalBurst-2 || len(s.proposed) > proposalBurst+2 {
		t.Errorf("%d refused, %d proposed", refused, len(s.proposed))
	}
	if w := ask(h, "GET", "/v1/policy/current", ""); w.Code != 200 {
		t.Errorf("reading is limited too: %d", w.Code)
	}
}

func TestWaitersAreLimited(t *testing.T) {
	s := &fake{awaiting: make(chan struct{}), decided: make(chan struct{}), statuses: map[string]Status{"p-1": {ID: "p-1", Status: "approved"}}}
	h := Handler(s)
	var wg sync.WaitGroup
	for range maxWaiters {
		wg.Go(func() {
			if w := ask(h, "GET", "/v1/proposals/p-1/wait", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"policy_reloaded":false`) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
		<-s.awaiting
	}
	if w := ask(h, "GET", "/v1/proposals/p-1/wait", ""); w.Code != 429 {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	close(s.decided)
	wg.Wait()
	go func() { <-s.awaiting }()
	if w := ask(h, "GET", "/v1/proposals/p-1/wait", ""); w.Code != 200 {
		t.Errorf("after the others: %d %s", w.Code, w.Body)
	}
}

// Over a real connection: a client that stops talking is not waited for, a long
// body is refused.
func TestBodiesAreBounded(t *testing.T) {
	server := httptest.NewServer(Handler(&fake{}))
	defer server.Close()
	resp, err := http.Post(server.URL+"/v1/proposals", "application/json", io.LimitReader(endless{}, 10<<20))
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != 413 {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestParseProposal(t *testing.T) {
	got, err := ParseProposal([]byte(addRule))
	if err != nil {
		t.Fatal(err)
	}
	rule := &policy.Rule{Name: "api", Binaries: []policy.Binary{{Path: "/usr/bin/curl"}}, Endpoints: []policy.Endpoint{{
		Host: "api.example", Port: 443, Protocol: "rest", Enforcement: "enforce",
		Rules: []policy.L7Allow{{Allow: policy.L7Match{Method: "GET", Path: "/v1/*"}}}}}}
	got.Operations[0].Rule.Name = "api"
	want := Proposal{Intent: "read the API", Operations: []Operation{{RuleName: "api", Rule: rule}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got.Operations[0].Rule, rule)
	}
	if p, err := ParseProposal([]byte(strings.Replace(addRule, "read the API", `\ud83d\ude00 \"<b>\" \/`, 1))); err != nil || p.Intent != "😀 \"<b>\" /" {
		t.Errorf("escapes: %q, %v", p.Intent, err)
	}
}

func TestParseProposalErrors(t *testing.T) {
	replaced := func(old, with string) string {
		if !strings.Contains(addRule, old) {
			panic(old)
		}
		return strings.Replace(addRule, old, with, 1)
	}
	for name, tt := range map[string]struct{ body, want string }{
		"empty":               {"", "body: not valid JSON"},
		"not JSON":            {"version: 1", "body: not valid JSON"},
		"two documents":       {addRule + "{}", "body: not valid JSON"},
		"a list":              {"[]", "body: must be an object with intent_summary and operations"},
		"null":                {"null", "body: must be an object"},
		"unknown key":         {replaced(`"intent_summary"`, `"intent"`), `body: unknown key "intent"`},
		"another operation":   {replaced(`addRule`, `removeRule`), `operations[0]: unknown key "removeRule": use addRule`},
		"key in other case":   {replaced(`ruleName`, `rulename`), `operations[0].addRule: unknown key "rulename"`},
		"key twice":           {replaced(`"ruleName":"api"`, `"ruleName":"api","ruleName":"b"`), `repeated key ruleName`},
		"key twice, in rule":  {replaced(`"port":443`, `"port":443,"port":80`), `repeated key port`},
		"intent is a list":    {replaced(`"read the API"`, `[]`), "intent_summary: must be a string"},
		"no operations":       {`{"operations":[]}`, "operations: must be a list"},
		"too many":            {`{"operations":[` + strings.Repeat("{},", 32) + "{}]}", "operations: must be a list of 1 to 32"},
		"no rule name":        {replaced(`"api"`, `" "`), "operations[0].addRule.ruleName"},
		"rule is null":        {`{"operations":[{"addRule":{"ruleName":"a","rule":null}}]}`, "operations[0].addRule.rule: must be an object"},
		"no rule":             {`{"operations":[{"addRule":{"ruleName":"a"}}]}`, "operations[0].addRule.rule: must be an object"},
		"unknown policy key":  {replaced(`"protocol"`, `"protocoll"`), "protocoll"},
		"bad host":            {replaced(`api.example`, `*`), "host"},
		"bad port":            {replaced(`443`, `70000`), "port"},
		"path with a query":   {replaced(`/v1/*`, `/v1/?x=1`), "operations[0].addRule.rule.endpoints[0].rules[0].allow.path: must not have a query"},
		"relative binary":     {replaced(`/usr/bin/curl`, `curl`), "binaries"},
		"deep":                {strings.Repeat("[", 60000), "body: not valid JSON"},
		"deep in the rule":    {replaced(`443`, strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), "body: nested deeper than 128"},
		"too deep":            {replaced(`443`, strings.Repeat("[", 20000)+strings.Repeat("]", 20000)), "body: not valid JSON"},
		"bad UTF-8 in a host": {replaced(`api.example`, "api\xff.example"), "body: not valid UTF-8"},
	} {
		p, err := ParseProposal([]byte(tt.body))
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q lacks %q", name, err, tt.want)
		}
	}
}

// Whatever is accepted is a valid rule that a policy can hold.
func FuzzParseProposal(f *testing.F) {
	f.Add([]byte(addRule))
	f.Add([]byte(`{"operations":[{"addRule":{"ruleName":"\u0000","rule":{"binaries":[{"path":"/x"}],"endpoints":[{"host":"**.a.b","ports":[1,2]}]}}}]}`))
	f.Add([]byte(`{"a":{"a":[{"b":1},{"b":1}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := ParseProposal(body)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		if len(p.Operations) == 0 || len(p.Operations) > maxOperations {
			t.Errorf("%d operations", len(p.Operations))
		}
		for _, op := range p.Operations {
			if err := op.Rule.Validate(op.RuleName); err != nil {
				t.Errorf("rule %q: %v", op.RuleName, err)
			}
			text, err := policy.Marshal(&policy.Policy{Version: 1, Network: map[string]*policy.Rule{"r": op.Rule}})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := policy.Parse(text); err != nil {
				t.Errorf("%v in\n%s", err, text)
			}
		}
	})
}
