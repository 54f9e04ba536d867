// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"path"

	"openshell.ai/openshell/internal/wildcard"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/proxy/names"
)

// nextStep is something that a refused agent can do, as a request to make.
type nextStep struct {
	Action string      `json:"action"`
	Method string      `json:"method"`
	URL    string      `json:"url"`
	Body   *submission `json:"body,omitempty"`
}

// submission is the body of a proposal, in OpenShell's words.
type submission struct {
	IntentSummary string      `json:"intent_summary"`
	Operations    []operation `json:"operations"`
}

type operation struct {
	AddRule addRule `json:"addRule"`
}

type addRule struct {
	RuleName string      `json:"ruleName"`
	Rule     policy.Rule `json:"rule"`
}

// nextSteps are what can be done about a refusal, where somebody answers at
// names.LocalHost: look, and where a rule is missing, propose it. method and
// path are empty where no request was seen.
func (p *Proxy) nextSteps(to *endpoint, refused *refusal, method, path string) []nextStep {
	if p.Local == nil || p.OmitNextSteps || !refused.evidence {
		return nil
	}
	const base = "http://" + names.LocalHost + "/v1/"
	steps := []nextStep{
		{Action: "inspect_policy", Method: "GET", URL: base + "policy/current"},
		{Action: "inspect_recent_denials", Method: "GET", URL: base + "denials?last=10"},
	}
	if !refused.lacksRule() {
		return steps
	}
	return append(steps, nextStep{Action: "submit_proposal", Method: "POST", URL: base + "proposals",
		Body: to.proposal(refused, method, path)})
}

// lacksRule reports whether one more rule would allow what was refused. Where an
// endpoint covers it and no match is missing, it would not.
func (r *refusal) lacksRule() bool {
	return r.evidence && (r.protocol == "" || len(r.missing) > 0)
}

// proposal is the rule that would allow what was refused, and no more.
func (e *endpoint) proposal(refused *refusal, method, requestPath string) *submission {
	addition := policy.Addition{Binary: e.process.Path, Host: e.host, Port: e.port}
	action := "connect"
	if method != "" {
		action = method
		matches := refused.missing
		if len(matches) == 0 {
			matches = []policy.L7Match{{Method: method, Path: wildcard.EscapeGlob(requestPath)}}
		}
		addition.Content = []policy.Content{{Protocol: refused.protocol, Path: refused.endpointPath, Allow: matches}}
	}
	return &submission{
		IntentSummary: fmt.Sprintf("Allow %s to %s %s%s", path.Base(e.process.Path), action, e.hostPort(), requestPath),
		Operations:    []operation{{AddRule: addRule{RuleName: addition.Key(), Rule: *addition.Rule()}}},
	}
}
