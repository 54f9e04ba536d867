// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/engine"
	"openshell.ai/openshell/proxy/identity"
)

// withLocal has somebody answer at policy.local, who tells what was asked.
func withLocal(_ *room, c *Config) {
	c.Local = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, ok := Caller(r.Context())
		body, err := io.ReadAll(r.Body)
		if !ok || err != nil {
			http.Error(w, "no", 500)
			return
		}
		io.WriteString(w, r.Method+" "+r.URL.String()+" "+caller.Path+" "+string(body))
	})
}

func TestLocal(t *testing.T) {
	for _, v := range []decision.Snapshot{enforcing(""), permissive("")} {
		r := newRoom(t, v, withLocal)
		const want = "POST /v1/proposals?x=y /usr/bin/tool body"
		for how, c := range map[string]*http.Client{"directly": r.client(false), "by the explicit proxy": r.proxied()} {
			got := r.do(c, r.request("POST", "http://policy.local/v1/proposals?x=y", "body"))
			if got.StatusCode != 200 || got.text != want {
				t.Errorf("%s: %d %s", how, got.StatusCode, got.text)
			}
			c.CloseIdleConnections()
		}
		tunnel := r.mustDial(explicitProxy)
		r.say(tunnel, "CONNECT policy.local:80 HTTP/1.1\r\nHost: policy.local:80\r\n\r\n")
		if got := r.say(tunnel, "GET /a HTTP/1.1\r\nHost: policy.local\r\n\r\n"); got.text != "GET /a /usr/bin/tool " {
			t.Errorf("in a tunnel: %d %s", got.StatusCode, got.text)
		}
		const record = "connect allowed connection policy.local:80 tls=none"
		r.want(record, record, record)
		if len(internet.Queries()) > 0 || len(internet.Requests()) > 0 {
			t.Errorf("outside was asked: %v %v", internet.Queries(), internet.Requests())
		}
	}
}

func TestLocalRefuses(t *testing.T) {
	r := newRoom(t, permissive(""), withLocal)
	hint := `{"error":"unsupported_scheme","detail":"use http://policy.local/, without TLS and on port 80"}`
	checkRefusal(t, r.get(r.client(false), "https://policy.local/"), 403, hint)
	checkRefusal(t, r.get(r.client(false), "http://policy.local:8080/"), 403, hint)
	checkRefusal(t, r.say(r.mustDial(explicitProxy), "CONNECT policy.local:443 HTTP/1.1\r\nHost: policy.local:443\r\n\r\n"), 403, hint)
	if resp := r.say(r.mustDial("policy.local:80"), "GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n"); resp.StatusCode != 421 {
		t.Errorf("another host: status %d", resp.StatusCode)
	}
	for _, c := range []*http.Client{r.client(false), r.proxied()} {
		if resp := r.do(c, r.request("POST", "http://policy.local/", strings.Repeat("x", localBody+1))); resp.StatusCode != 413 {
			t.Errorf("a long body: status %d", resp.StatusCode)
		}
		if resp := r.do(c, r.request("POST", "http://policy.local/", strings.Repeat("x", localBody))); resp.StatusCode != 200 {
			t.Errorf("a body as long as may be: status %d", resp.StatusCode)
		}
	}
	for _, rec := range r.records() {
		if rec.Evidence {
			t.Errorf("record %s", line(rec))
		}
	}
	nobody := func(_ *room, c *Config) {
		c.Identify = func(netip.AddrPort, netip.AddrPort) (identity.Process, error) {
			return identity.Process{}, errors.New("nobody")
		}
	}
	r = newRoom(t, permissive(""), withLocal, nobody)
	for _, c := range []*http.Client{r.client(false), r.proxied()} {
		if resp := r.get(c, "http://policy.local/"); resp.StatusCode != 403 {
			t.Errorf("an unknown process: status %d", resp.StatusCode)
		}
	}
	r = newRoom(t, enforcing(""))
	if resp := r.get(r.client(false), "http://policy.local/"); resp.StatusCode != 403 || !strings.Contains(resp.text, "network connections not allowed") {
		t.Errorf("where nobody answers: %d %s", resp.StatusCode, resp.text)
	}
}

// TestNextSteps checks that a refusal's proposal is one that would help.
func TestNextSteps(t *testing.T) {
	r := newRoom(t, enforcing(rest), withLocal)
	const url = "https://" + weather
	for _, tt := range []struct {
		answer answer
		path   string // that is allowed then; "" for the whole connection
	}{
		{r.get(r.client(false), url+"/no?key=secret"), "/no"},
		{r.get(r.client(false), "http://web.example/x"), "/x"},
		{r.get(r.proxied(), "http://web.example/y"), "/y"},
		{r.say(r.mustDial(explicitProxy), "CONNECT web.example:443 HTTP/1.1\r\nHost: web.example:443\r\n\r\n"), ""},
	} {
		var body struct {
			NextSteps []struct {
				Action, Method, URL string
				Body                struct {
					IntentSummary string `json:"intent_summary"`
					Operations    []struct {
						AddRule struct {
							RuleName string
							Rule     json.RawMessage
						}
					}
				}
			} `json:"next_steps"`
		}
		if err := json.Unmarshal([]byte(tt.answer.text), &body); err != nil || len(body.NextSteps) != 3 {
			t.Errorf("%v in %s", err, tt.answer.text)
			continue
		}
		if strings.Contains(tt.answer.text, "secret") {
			t.Errorf("the query is told: %s", tt.answer.text)
		}
		var actions []string
		for _, s := range body.NextSteps {
			actions = append(actions, s.Action+" "+s.Method+" "+s.URL)
		}
		if got := strings.Join(actions, "\n"); got != "inspect_policy GET http://policy.local/v1/policy/current\n"+
			"inspect_recent_denials GET http://policy.local/v1/denials?last=10\nsubmit_proposal POST http://policy.local/v1/proposals" {
			t.Errorf("steps %s", got)
		}
		submit := body.NextSteps[2].Body
		if submit.IntentSummary == "" || len(submit.Operations) != 1 {
			t.Errorf("submission %+v", submit)
			continue
		}
		add := submit.Operations[0].AddRule
		p, _, err := policy.Parse([]byte(`{"version":1,"network_policies":{"` + add.RuleName + `":` + string(add.Rule) + `}}`))
		if err != nil {
			t.Errorf("%v in %s", err, add.Rule)
			continue
		}
		e, err := engine.Compile(p, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ep := p.Network[add.RuleName].Endpoints[0]
		m := e.Connect(engine.Connection{Binary: tool.Path, Host: ep.Host, Port: ep.PortList()[0]})
		if !m.Allowed || m.Inspect != (tt.path != "") {
			t.Errorf("%s allows %+v", add.Rule, m)
		}
		if tt.path != "" && (m.Request(engine.Request{Method: "GET", Path: tt.path}).Decision != engine.Allow ||
			m.Request(engine.Request{Method: "GET", Path: "/other"}).Decision != engine.Deny) {
			t.Errorf("%s does not allow just %s", add.Rule, tt.path)
		}
	}
}
