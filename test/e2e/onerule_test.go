// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// Whoever is told of a denial, the agent, the operator or the reviewer, reads the same rule for it.
// (The reviewer's has `*` in place of identifiers, since the next run has others.)
func TestOneRuleForADenial(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("agent", noNetwork)
	c := w.Container(node.Policy("agent")).Start()
	for _, url := range []string{
		"https://" + fakenet.WeatherHost + "/forecast", "http://" + fakenet.WebHost + "/b/x%2Cy;v=1//*", "https://" + fakenet.GitHubHost + "/repos",
	} {
		r := c.Client("get", url)
		refused(t, r, http.StatusForbidden)
		var body struct {
			Host      string `json:"host"`
			NextSteps []struct {
				Body *struct {
					Operations []struct {
						AddRule struct {
							RuleName string          `json:"ruleName"`
							Rule     json.RawMessage `json:"rule"`
						} `json:"addRule"`
					} `json:"operations"`
				} `json:"body"`
			} `json:"next_steps"`
		}
		node.Must(t, json.Unmarshal([]byte(r.Body), &body))
		step := body.NextSteps[len(body.NextSteps)-1].Body.Operations[0].AddRule
		asked := onlyRule(t, `{"version":1,"network_policies":{"`+step.RuleName+`":`+string(step.Rule)+`}}`)

		var x struct {
			Add string `json:"add"`
		}
		node.Must(t, json.Unmarshal([]byte(w.OpenShell("policy", "explain", "agent", "--binary", node.ClientPath, "--url", url, "--json").Stdout), &x))
		explained := onlyRule(t, "version: 1\nnetwork_policies:\n"+describe.Indent(x.Add))

		proposal := w.ProposalFor("agent", asked.Endpoints[0].Host)
		proposed := proposal.Rule.Clone()
		if proposed.Name != step.RuleName+"_"+proposal.ID[2:] {
			t.Errorf("%s: keys %s and %s", url, step.RuleName, proposed.Name)
		}
		proposed.Name, asked.Name, explained.Name = "", "", ""
		if policy.RuleDigest(asked) != policy.RuleDigest(proposed) || policy.RuleDigest(explained) != policy.RuleDigest(proposed) {
			t.Errorf("%s: the agent is told\n%s\nthe operator\n%s\nand the reviewer\n%s", url, step.Rule, x.Add, jsonOf(t, proposed))
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	node.Must(t, err)
	return string(text)
}

func onlyRule(t *testing.T, text string) *policy.Rule {
	t.Helper()
	p, _, err := policy.Parse([]byte(text))
	if err != nil || len(p.Network) != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	for _, r := range p.Network {
		return r
	}
	return nil
}
