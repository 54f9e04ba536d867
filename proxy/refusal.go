// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"openshell.ai/openshell/internal/decision"
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
	// protocol, endpointPath and missing are the record's.
	protocol, endpointPath string
	missing                []policy.L7Match
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
	NextSteps   []nextStep   `json:"next_steps,omitempty"`
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
	// Allow holds the matches to be allowed, where they are not just Method and
	// Path.
	Allow []policy.L7Match `json:"allow,omitempty"`
}

// refusedPolicy refuses a connection, whatever it is to carry.
func refusedPolicy(layer, reason string) *refusal {
	return &refusal{
		status: http.StatusForbidden, layer: layer, reason: reason,
		outcome: "not permitted by policy",
		body:    refusalBody{Error: "policy_denied", Reason: reason},
	}
}

// refusedConnection refuses a connection that a policy denies.
func refusedConnection(d decision.Decision) *refusal {
	r := refusedPolicy(d.Layer, d.Reason)
	r.evidence = d.Learnable
	return r
}

// refusedAddress keeps to itself where the name leads: only the kind of
// objection is told, in OpenShell's words, which come before the colon.
func (e *endpoint) refusedAddress(reason string) *refusal {
	kind, _, _ := strings.Cut(reason, ":")
	return &refusal{
		status: http.StatusForbidden, layer: LayerSSRF, reason: reason,
		body: refusalBody{
			Error:  "ssrf_denied",
			Detail: fmt.Sprintf("CONNECT %s blocked: %s", e.hostPort(), kind),
		},
	}
}

func (e *endpoint) refusedUpstream(err error) *refusal {
	return &refusal{
		status: http.StatusBadGateway, layer: LayerUpstream, reason: err.Error(),
		body: refusalBody{
			Error:  "upstream_unreachable",
			Detail: fmt.Sprintf("connection to %s failed", e.hostPort()),
		},
	}
}

func (e *endpoint) refusedCertificate(err error) *refusal {
	return &refusal{
		status: http.StatusBadGateway, layer: LayerTLS, reason: err.Error(),
		body: refusalBody{
			Error:  "upstream_tls_failed",
			Detail: fmt.Sprintf("TLS connection to %s failed: %v", e.hostPort(), err),
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

func (h *httpFlow) refusedAuthority(authority string) *refusal {
	return &refusal{
		status: http.StatusMisdirectedRequest, layer: LayerAuthority,
		reason: fmt.Sprintf("request for %q on a connection to %s", authority, h.endpoint().hostPort()),
		body: refusalBody{
			Error:   "request_authority_mismatch",
			Message: "HTTP request authority does not match the authorized tunnel endpoint",
		},
	}
}

func refusedBody(status int, code, detail string) *refusal {
	return &refusal{status: status, layer: LayerHTTP, reason: detail, body: refusalBody{Error: code, Detail: detail}}
}

// refusedTunnel refuses CONNECT to an origin, behind which anything could be.
func refusedTunnel() *refusal {
	return refusedBody(http.StatusMethodNotAllowed, "unsupported_method",
		"CONNECT is for the sandbox's explicit proxy, not for an origin")
}

func refusedLength(limit int) *refusal {
	return refusedBody(http.StatusRequestEntityTooLarge, "request_body_too_large",
		fmt.Sprintf("the endpoint decides on bodies and takes at most %d bytes", limit))
}

func refusedBusy() *refusal {
	r := refusedBody(http.StatusServiceUnavailable, "busy", "too many bodies are being decided on")
	r.layer = LayerLimit
	return r
}

// refusedRequests refuses a request where streams of HTTP/2 are as many as
// connections may be.
func refusedRequests(limit int) *refusal {
	r := refusedBody(http.StatusServiceUnavailable, "busy",
		fmt.Sprintf("the sandbox has %d requests under way (limits.connections)", limit))
	r.layer = LayerLimit
	return r
}

func refusedMemory() *refusal {
	r := refusedBody(http.StatusServiceUnavailable, "busy", "the supervisor has no memory left (supervisor.memory)")
	r.layer = LayerLimit
	return r
}

// refusedRequest explains a request that its endpoint's rules deny.
func (h *httpFlow) refusedRequest(d decision.Decision, method, path string) *refusal {
	to := h.endpoint()
	r := &refusal{
		status: http.StatusForbidden, layer: d.Layer, reason: d.Reason, evidence: d.Learnable,
		policy: d.Policy, protocol: d.Protocol, endpointPath: d.EndpointPath, missing: d.Missing,
	}
	if d.Malformed {
		r.status, r.policy = http.StatusBadRequest, ""
		r.body = refusalBody{Error: malformedError(d.Protocol), Detail: d.Reason}
		return r
	}
	r.body = refusalBody{
		Error: "policy_denied", Detail: d.Reason, Policy: d.Policy, Rule: method + " " + path,
		Layer: LayerL7, Protocol: protocolName(d.Protocol), Method: method, Path: path,
		Host: to.host, Port: to.port, Binary: to.process.Path,
	}
	if r.lacksRule() {
		r.body.RuleMissing = to.missingRule(d, method, path)
	}
	if h.absolute { // OpenShell says less to clients of its forward proxy
		r.policy, r.body = "", refusalBody{Error: "policy_denied"}
		r.outcome = "denied by L7 policy: " + d.Reason
		if strings.HasSuffix(d.Reason, noEndpointPath) {
			r.outcome = noEndpointPath
		}
	}
	return r
}

// malformedError names what could not be read.
func malformedError(protocol string) string {
	if p := policy.ProtocolOf(protocol); p != nil && p.Malformed != "" {
		return p.Malformed
	}
	return "invalid_request_body"
}

// protocolName is a protocol for refusals. Where no endpoint covers a request,
// nothing is known of it but that it is HTTP.
func protocolName(protocol string) string {
	if protocol == "" {
		return policy.ProtocolREST
	}
	return protocol
}

// missingRule says what the policy lacks for a request.
func (e *endpoint) missingRule(d decision.Decision, method, path string) *missingRule {
	protocol := protocolName(d.Protocol)
	rule := &missingRule{
		Type: strings.ReplaceAll(protocol, "-", "") + "_allow", Layer: LayerL7, Method: method, Path: path,
		Host: e.host, Port: e.port, Binary: e.process.Path,
	}
	if protocol != policy.ProtocolREST || len(d.Missing) > 1 || len(d.Missing) == 1 && d.Missing[0].Upgrade != nil {
		rule.Allow = d.Missing
	}
	return rule
}

const noEndpointPath = "did not match an L7 endpoint path"

// writeFor answers a client that asked for an action, such as "GET
// host:port/path", with the refusal and ends its connection. steps are what it can do.
func (r *refusal) writeFor(w http.ResponseWriter, action string, forward bool, steps []nextStep) {
	body := r.body
	body.NextSteps = steps
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
