package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"openshell.ai/openshell/policy"
)

// refusal is a "no" that can be explained to a client that speaks HTTP: the
// status and JSON body that OpenShell's clients know.
type refusal struct {
	status   int
	layer    string
	reason   string
	evidence bool
	policy   string
	// outcome completes the body's detail after the action it is about.
	outcome string
	body    refusalBody
}

// refusalBody is the answer's JSON. Fields that do not apply are absent.
type refusalBody struct {
	Error       string       `json:"error"`
	Detail      string       `json:"detail,omitempty"`
	Message     string       `json:"message,omitempty"`
	Reason      string       `json:"reason,omitempty"`
	Policy      string       `json:"policy,omitempty"`
	Rule        string       `json:"rule,omitempty"`
	Layer       string       `json:"layer,omitempty"`
	Protocol    string       `json:"protocol,omitempty"`
	Method      string       `json:"method,omitempty"`
	Path        string       `json:"path,omitempty"`
	Host        string       `json:"host,omitempty"`
	Port        uint16       `json:"port,omitempty"`
	Binary      string       `json:"binary,omitempty"`
	RuleMissing *missingRule `json:"rule_missing,omitempty"`
}

// missingRule is what would have to be added to the policy.
type missingRule struct {
	Type   string `json:"type"`
	Layer  string `json:"layer"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Host   string `json:"host"`
	Port   uint16 `json:"port"`
	Binary string `json:"binary"`
}

// refusedPolicy refuses a connection, whatever it is to carry.
func (f *flow) refusedPolicy(layer, reason string) *refusal {
	return &refusal{
		status: http.StatusForbidden, layer: layer, reason: reason, evidence: layer == LayerL4,
		outcome: "not permitted by policy",
		body:    refusalBody{Error: "policy_denied", Reason: reason},
	}
}

// refusedAddress keeps to itself where the name leads: only the kind of
// objection is told, in OpenShell's words, which come before the colon.
func (f *flow) refusedAddress(err error) *refusal {
	kind, _, _ := strings.Cut(err.Error(), ":")
	return &refusal{
		status: http.StatusForbidden, layer: LayerSSRF, reason: err.Error(),
		body: refusalBody{
			Error:  "ssrf_denied",
			Detail: fmt.Sprintf("CONNECT %s blocked: %s", f.hostPort(), kind),
		},
	}
}

func (f *flow) refusedUpstream(err error) *refusal {
	return &refusal{
		status: http.StatusBadGateway, layer: LayerUpstream, reason: err.Error(),
		body: refusalBody{
			Error:  "upstream_unreachable",
			Detail: fmt.Sprintf("connection to %s failed", f.hostPort()),
		},
	}
}

func (f *flow) refusedCertificate(err error) *refusal {
	return &refusal{
		status: http.StatusBadGateway, layer: LayerTLS, reason: err.Error(),
		body: refusalBody{
			Error:  "upstream_tls_failed",
			Detail: fmt.Sprintf("TLS connection to %s failed: %v", f.hostPort(), err),
		},
	}
}

func refusedTarget(err error) *refusal {
	return &refusal{
		status: http.StatusBadRequest, layer: LayerHTTP, reason: err.Error(),
		body: refusalBody{
			Error:  "invalid_request_target",
			Detail: "request-target must be canonical",
			Reason: err.Error(),
		},
	}
}

func (f *flow) refusedAuthority(authority string) *refusal {
	return &refusal{
		status: http.StatusMisdirectedRequest, layer: LayerAuthority,
		reason: fmt.Sprintf("request for %q on a connection to %s", authority, f.hostPort()),
		body: refusalBody{
			Error:   "request_authority_mismatch",
			Message: "HTTP request authority does not match the authorized tunnel endpoint",
		},
	}
}

// refusedRequest explains a request that its endpoint's rules deny.
func (f *flow) refusedRequest(v policy.Verdict, method, path string) *refusal {
	r := &refusal{
		status: http.StatusForbidden, layer: LayerL7, reason: v.Reason, evidence: true, policy: v.Policy,
		body: refusalBody{
			Error: "policy_denied", Detail: v.Reason, Policy: v.Policy, Rule: method + " " + path,
			Layer: LayerL7, Protocol: "rest", Method: method, Path: path,
			Host: f.host, Port: f.port, Binary: f.proc.Path,
			RuleMissing: &missingRule{
				Type: "rest_allow", Layer: LayerL7, Method: method, Path: path,
				Host: f.host, Port: f.port, Binary: f.proc.Path,
			},
		},
	}
	if f.forward { // OpenShell says less to clients of its forward proxy
		r.policy, r.body = "", refusalBody{Error: "policy_denied"}
		r.outcome = "denied by L7 policy: " + v.Reason
		if strings.HasSuffix(v.Reason, noEndpointPath) {
			r.outcome = noEndpointPath
		}
	}
	return r
}

const noEndpointPath = "did not match an L7 endpoint path"

// writeFor answers a client that asked for an action, such as "GET
// host:port/path", with the refusal and ends its connection.
func (r *refusal) writeFor(w http.ResponseWriter, action string, forward bool) {
	body := r.body
	if r.outcome != "" {
		body.Detail = action + " " + r.outcome
	}
	if forward {
		body.Reason = ""
	}
	text, err := json.Marshal(body)
	if err != nil { // strings and numbers always marshal
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	if r.policy != "" {
		h.Set("X-OpenShell-Policy", r.policy)
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(append(text, '\n')) // The workload may be gone.
}
