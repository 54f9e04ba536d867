// SPDX-License-Identifier: Apache-2.0

// Package local owns the HTTP interface that a workload finds at
// http://policy.local/: it reads the policy that is in force and what was
// denied, proposes rules, and waits for the decision on them, with the routes
// and bodies that OpenShell's clients know. It decides nothing and approves
// nothing, knows no files, and does not know who asks: that is its Sandbox's.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"openshell.ai/openshell/policy"
)

// Bounds of what a workload may ask for.
const (
	maxBody       = 64 << 10 // bytes
	bodyWait      = 15 * time.Second
	maxDenials    = 100
	someDenials   = 10
	maxWait       = 300 * time.Second
	someWait      = 60 * time.Second
	maxWaiters    = 16 // at once
	proposalRate  = 60 // a minute
	proposalBurst = 20
)

// Sandbox is what the interface is to. Its methods may be called at the same
// time. Their context is the request's.
type Sandbox interface {
	// Policy returns the effective policy.
	Policy() *policy.Policy
	// Denials returns the last denials, at most n, the newest first, each as a
	// line that is fit to show.
	Denials(n int) []string
	// Propose makes proposals of what the caller asks for, one for each
	// operation, in their order. An error that is ErrUnknownCaller is about who
	// asks, an InvalidError about what.
	Propose(ctx context.Context, p Proposal) ([]Submitted, error)
	// Status returns what has become of a proposal of this interface. The error
	// for one that there is not is fs.ErrNotExist.
	Status(id string) (Status, error)
	// Await returns once a proposal is decided and, where it was approved, is in
	// force in this sandbox; or when ctx ends, with what there is by then.
	Await(ctx context.Context, id string) (Status, error)
}

// ErrUnknownCaller says that it cannot be told which process asks.
var ErrUnknownCaller = errors.New("it cannot be told which process asks")

// InvalidError says what is wrong with a proposal.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *InvalidError) Unwrap() error { return e.Err }

// Submitted is what has become of an operation.
type Submitted struct {
	ID       string // of the proposal, empty: there is none
	Accepted bool
	Reason   string // why not
}

// Status is a proposal as its proposer may see it.
type Status struct {
	ID              string `json:"chunk_id"`
	Status          string `json:"status"` // pending, approved, rejected or superseded
	RuleName        string `json:"rule_name"`
	Binary          string `json:"binary"`
	RejectionReason string `json:"rejection_reason"`
	// ValidationResult says why the rule could not be approved as it is; empty:
	// nothing is known against it.
	ValidationResult string `json:"validation_result"`
	// ApplicationError says why an approved rule is not in force.
	ApplicationError string `json:"application_error"`
	ReviewToken      string `json:"review_token"` // the rule's digest
	CurrentHash      string `json:"current_effective_policy_hash"`
	CandidateHash    string `json:"candidate_effective_policy_hash"` // with the rule

	// Loaded reports whether an approved rule is in force in this sandbox.
	Loaded bool `json:"-"`
}

// Handler returns the interface to a sandbox. All of it is bounded for the
// sandbox as a whole.
func Handler(s Sandbox) http.Handler {
	h := &handler{
		sandbox: s,
		rate:    rate.NewLimiter(rate.Limit(proposalRate)/60, proposalBurst),
		waiters: make(chan struct{}, maxWaiters),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.help)
	mux.HandleFunc("GET /v1/policy/current", h.policy)
	mux.HandleFunc("GET /v1/denials", h.denials)
	mux.HandleFunc("POST /v1/proposals", h.propose)
	mux.HandleFunc("GET /v1/proposals/{id}", h.status)
	mux.HandleFunc("GET /v1/proposals/{id}/wait", h.wait)
	return routed(mux)
}

// Disabled answers every request that the interface is switched off.
func Disabled() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "feature_disabled", "this node's administrator has switched policy.local off")
	})
}

// routed answers in JSON where no route does.
func routed(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := &http.Request{Method: method, URL: &url.URL{Path: r.URL.Path}}
			if _, pattern := mux.Handler(other); pattern != "" {
				w.Header().Set("Allow", method)
				refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "use "+method)
				return
			}
		}
		refuse(w, http.StatusNotFound, "not_found", "there is no such route: GET / lists them")
	})
}

type handler struct {
	sandbox Sandbox
	rate    *rate.Limiter
	waiters chan struct{}
}

const help = `The policy of this sandbox. Nothing here approves anything: people do.

GET  /v1/policy/current                  what is allowed now, as YAML
GET  /v1/denials?last=N                  the last denials (1 to 100, 10)
POST /v1/proposals                       propose rules for review:
     {"intent_summary": "why", "operations": [{"addRule": {"ruleName": "name", "rule": {
       "endpoints": [{"host": "api.example.com", "port": 443, "protocol": "rest", "enforcement": "enforce",
                      "rules": [{"allow": {"method": "GET", "path": "/v1/*"}}]}],
       "binaries": [{"path": "/usr/bin/curl"}]}}}]}
GET  /v1/proposals/ID                    what has become of a proposal
GET  /v1/proposals/ID/wait?timeout=S     the same, once it is decided (1 to 300 seconds, 60)
`

func (h *handler) help(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, help) // the workload may be gone
}

func (h *handler) policy(w http.ResponseWriter, _ *http.Request) {
	text, err := policy.Marshal(h.sandbox.Policy())
	if err != nil {
		refuse(w, http.StatusNotFound, "policy_unavailable", err.Error())
		return
	}
	answer(w, http.StatusOK, struct {
		Format string `json:"format"`
		YAML   string `json:"policy_yaml"`
	}{"yaml", string(text)})
}

func (h *handler) denials(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "last", someDenials, maxDenials)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	lines := h.sandbox.Denials(n)
	answer(w, http.StatusOK, struct {
		Denials   []string `json:"denials"`
		Available bool     `json:"log_available"`
	}{append([]string{}, lines...), true})
}

func (h *handler) propose(w http.ResponseWriter, r *http.Request) {
	if !h.rate.Allow() {
		refuseForNow(w, "too_many_requests",
			fmt.Sprintf("a sandbox may make %d submissions a minute: wait, or put more operations in one", proposalRate))
		return
	}
	// The server may have read the body already, or know no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyWait))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "payload_too_large", fmt.Sprintf("the body may have %d bytes", maxBody))
		return
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid_request", "the body cannot be read")
		return
	}
	p, err := ParseProposal(body)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_proposal", err.Error())
		return
	}
	results, err := h.sandbox.Propose(r.Context(), p)
	var invalid *InvalidError
	switch {
	case errors.Is(err, ErrUnknownCaller):
		refuse(w, http.StatusForbidden, "policy_denied", err.Error())
	case errors.As(err, &invalid):
		refuse(w, http.StatusBadRequest, "invalid_proposal", err.Error())
	case err != nil:
		refuse(w, http.StatusServiceUnavailable, "proposals_unavailable",
			"the proposals could not be written: try again later")
	default:
		answer(w, http.StatusAccepted, submittedOf(results))
	}
}

// submitted is the answer to proposals.
type submitted struct {
	Status   string   `json:"status"`
	Accepted int      `json:"accepted_chunks"`
	Rejected int      `json:"rejected_chunks"`
	Reasons  []string `json:"rejection_reasons"`
	IDs      []string `json:"accepted_chunk_ids"`
}

func submittedOf(results []Submitted) submitted {
	s := submitted{Status: "submitted", Reasons: []string{}, IDs: []string{}}
	for _, r := range results {
		if r.Accepted {
			s.Accepted++
			s.IDs = append(s.IDs, r.ID)
			continue
		}
		s.Rejected++
		reason := r.Reason
		if r.ID != "" {
			reason = r.ID + ": " + reason
		}
		s.Reasons = append(s.Reasons, reason)
	}
	return s
}

func (h *handler) status(w http.ResponseWriter, r *http.Request) {
	if s, err := h.sandbox.Status(r.PathValue("id")); err != nil {
		refuseStatus(w, err)
	} else {
		answer(w, http.StatusOK, s)
	}
}

// waited is a status, and what came of waiting for it.
type waited struct {
	Status
	TimedOut bool  `json:"timed_out,omitempty"`
	Reloaded *bool `json:"policy_reloaded,omitempty"`
}

func (h *handler) wait(w http.ResponseWriter, r *http.Request) {
	seconds, err := number(r, "timeout", int(someWait/time.Second), int(maxWait/time.Second))
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	select {
	case h.waiters <- struct{}{}:
		defer func() { <-h.waiters }()
	default:
		refuseForNow(w, "too_many_requests",
			fmt.Sprintf("%d requests wait already: ask for the proposal without /wait", maxWaiters))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	s, err := h.sandbox.Await(ctx, r.PathValue("id"))
	if err != nil {
		refuseStatus(w, err)
		return
	}
	result := waited{Status: s}
	switch s.Status {
	case "pending":
		result.TimedOut = true
	case "approved":
		result.Reloaded = &s.Loaded
	}
	answer(w, http.StatusOK, result)
}

func refuseStatus(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "chunk_not_found", "there is no such proposal")
		return
	}
	refuse(w, http.StatusServiceUnavailable, "proposals_unavailable", "the proposal could not be read: try again later")
}

// number reads a query parameter from 1 to most; absent, it is usual.
func number(r *http.Request, name string, usual, most int) (int, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, fmt.Errorf("query: %w", err)
	}
	if !query.Has(name) {
		return usual, nil
	}
	n, err := strconv.Atoi(query.Get(name))
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s: must be a number from 1 to %d", name, most)
	}
	return n, nil
}

func refuse(w http.ResponseWriter, status int, name, detail string) {
	answer(w, status, struct {
		Error  string `json:"error"`
		Detail string `json:"detail"`
	}{name, detail})
}

// refuseForNow refuses what may be asked for again later (RFC 6585 section 4).
func refuseForNow(w http.ResponseWriter, name, detail string) {
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusTooManyRequests, name, detail)
}

func answer(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // the workload may be gone
}
