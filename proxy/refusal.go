package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

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
	body     refusalBody
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

func (f *flow) refusedPolicy(layer, reason string) *refusal {
	return &refusal{
		status: http.StatusForbidden, layer: layer, reason: reason, evidence: layer == LayerL4,
		body: refusalBody{
			Error:  "policy_denied",
			Detail: fmt.Sprintf("CONNECT %s not permitted by policy", f.hostPort()),
			Reason: reason, Host: f.host, Port: f.port, Binary: f.proc.Path,
		},
	}
}

func (f *flow) refusedAddress(err error) *refusal {
	reason := err.Error()
	var addrErr *policy.AddressError
	if errors.As(err, &addrErr) {
		reason = addrErr.Reason
	}
	return &refusal{
		status: http.StatusForbidden, layer: LayerSSRF, reason: err.Error(),
		body: refusalBody{
			Error:  "ssrf_denied",
			Detail: fmt.Sprintf("CONNECT %s blocked: %s", f.hostPort(), reason),
		},
	}
}

func (f *flow) refusedUpstream(err error) *refusal {
	return &refusal{
		status: http.StatusBadGateway, layer: LayerUpstream, reason: err.Error(),
		body: refusalBody{
			Error:  "upstream_unreachable",
			Detail: fmt.Sprintf("connection to %s failed: %v", f.hostPort(), err),
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

func (f *flow) refusedProtocol() *refusal {
	return &refusal{
		status: http.StatusForbidden, layer: LayerL7, reason: "the endpoint's protocol is HTTP, and this is not HTTP",
		body: refusalBody{
			Error:  "unsupported_l7_protocol",
			Detail: fmt.Sprintf("%s carries a protocol that its endpoint does not declare", f.hostPort()),
		},
	}
}

func refusedTarget(err error) *refusal {
	return &refusal{
		status: http.StatusBadRequest, layer: LayerHTTP, reason: err.Error(),
		body: refusalBody{
			Error:   "invalid_request_target",
			Message: "request-target must be canonical",
			Detail:  err.Error(),
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

// refusedRequest explains a denied request; layer is the one that has no rule
// for it.
func (f *flow) refusedRequest(layer string, v policy.Verdict, method, path string) *refusal {
	r := &refusal{
		status: http.StatusForbidden, layer: layer, reason: v.Reason, evidence: true, policy: v.Policy,
		body: refusalBody{
			Error:  "policy_denied",
			Detail: v.Reason, Reason: v.Reason, Policy: v.Policy, Rule: method + " " + path,
			Layer: layer, Protocol: "rest", Method: method, Path: path,
			Host: f.host, Port: f.port, Binary: f.proc.Path,
			RuleMissing: &missingRule{
				Type: "rest_allow", Layer: layer, Method: method, Path: path,
				Host: f.host, Port: f.port, Binary: f.proc.Path,
			},
		},
	}
	if layer == LayerL4 {
		r.body.Detail = fmt.Sprintf("%s %s%s not permitted by policy", method, f.hostPort(), path)
	}
	return r
}

// write answers a request with the refusal and ends its connection.
func (r *refusal) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	if r.policy != "" {
		h.Set("X-OpenShell-Policy", r.policy)
	}
	body, err := json.Marshal(r.body)
	if err != nil { // strings and numbers always marshal
		panic(err)
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(append(body, '\n')) // The workload may be gone.
}
