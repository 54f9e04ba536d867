// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/strictjson"
	"openshell.ai/openshell/internal/usertext"
	"openshell.ai/openshell/policy"
)

// Proposal is what a workload asks for.
type Proposal struct {
	Intent     string // why
	Operations []Operation
}

// Operation asks for a rule. It is valid, as policies go.
type Operation struct {
	RuleName string
	Rule     *policy.Rule
}

// maxOperations bounds a proposal.
const maxOperations = 32

// ParseProposal reads the body of a proposal. It is strict: an unknown key, a
// key that is there twice, and what no policy could say are errors, which name
// the field.
func ParseProposal(body []byte) (Proposal, error) {
	if _, err := strictjson.Parse(body); err != nil {
		return Proposal{}, fmt.Errorf("body: %w", err)
	}
	var p Proposal
	fields, err := object(body, "", "intent_summary", "operations")
	if err != nil {
		return p, err
	}
	if raw, ok := fields["intent_summary"]; ok {
		if err := json.Unmarshal(raw, &p.Intent); err != nil {
			return p, errors.New("intent_summary: must be a string")
		}
	}
	var operations []json.RawMessage
	if err := json.Unmarshal(fields["operations"], &operations); err != nil || len(operations) == 0 ||
		len(operations) > maxOperations {
		return p, fmt.Errorf("operations: must be a list of 1 to %d", maxOperations)
	}
	for i, raw := range operations {
		op, err := parseOperation(raw, fmt.Sprintf("operations[%d]", i))
		if err != nil {
			return p, err
		}
		p.Operations = append(p.Operations, op)
	}
	return p, nil
}

func parseOperation(raw json.RawMessage, at string) (op Operation, err error) {
	fields, err := object(raw, at, "addRule")
	if err != nil {
		return op, err
	}
	at += ".addRule"
	if fields, err = object(fields["addRule"], at, "ruleName", "rule"); err != nil {
		return op, err
	}
	if err := json.Unmarshal(fields["ruleName"], &op.RuleName); err != nil || strings.TrimSpace(op.RuleName) == "" {
		return op, fmt.Errorf("%s.ruleName: must be a string that is not empty", at)
	}
	if op.Rule, err = parseRule(op.RuleName, fields["rule"]); err != nil {
		return op, fmt.Errorf("%s.rule: %w", at, err)
	}
	for i, e := range op.Rule.Endpoints {
		for j, r := range e.Rules {
			if strings.Contains(r.Allow.Path, "?") {
				return op, fmt.Errorf("%s.rule.endpoints[%d].rules[%d].allow.path: must not have a query: use query", at, i, j)
			}
		}
	}
	return op, nil
}

// parseRule reads a rule with the policy's own parser, as the only rule of a
// policy.
func parseRule(name string, raw json.RawMessage) (*policy.Rule, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return nil, errors.New("must be an object with endpoints and binaries")
	}
	var rule any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&rule); err != nil {
		return nil, err
	}
	// Written anew, JSON is YAML: with neither surrogate pairs nor tabs.
	text := new(bytes.Buffer)
	enc := json.NewEncoder(text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(map[string]any{"version": 1, "network_policies": map[string]any{name: rule}}); err != nil {
		return nil, err
	}
	p, _, err := policy.Parse(text.Bytes())
	if err != nil {
		return nil, errors.New(usertext.OneLine(err))
	}
	parsed := p.Network[name]
	if parsed == nil {
		return nil, errors.New("is empty")
	}
	return parsed, nil
}

// object splits a JSON object, which may have no other keys.
func object(raw json.RawMessage, at string, keys ...string) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return nil, fmt.Errorf("%s: must be an object with %s", where(at), strings.Join(keys, " and "))
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(keys, key) {
			return nil, fmt.Errorf("%s: unknown key %.64q: use %s", where(at), key, strings.Join(keys, " and "))
		}
	}
	return fields, nil
}

func where(at string) string {
	if at == "" {
		return "body"
	}
	return at
}
