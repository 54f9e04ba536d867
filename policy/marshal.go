// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// Marshal writes a policy as YAML that OpenShell loads: fields in a fixed
// order, keys sorted, so that equal policies are equal bytes. A learned rule
// carries that fact as a comment, which Parse reads back.
//
// It fails on a policy that does not validate: what is written can be read.
func Marshal(p *Policy) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	return encodePolicy(p)
}

func encodePolicy(p *Policy) ([]byte, error) {
	var root yaml.Node
	if err := root.Encode(p); err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "network_policies" {
			continue
		}
		rules := root.Content[i+1].Content
		for j := 0; j+1 < len(rules); j += 2 {
			if r := p.Network[rules[j].Value]; r != nil && r.Learned {
				rules[j].HeadComment = "# " + learnedComment
			}
		}
	}
	return encodeYAML(&root)
}

// MarshalRules writes entries of network_policies as YAML.
func MarshalRules(rules map[string]*Rule) ([]byte, error) { return encodeYAML(rules) }

func encodeYAML(v any) ([]byte, error) {
	data, err := yaml.Dump(v, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("marshal policy: %w", err)
	}
	return bytes.TrimPrefix(data, []byte("---\n")), nil
}

// Digest identifies a policy's contents: "sha256:" and the hash of its YAML.
func (p *Policy) Digest() string {
	data, err := encodePolicy(p)
	return digest(data, err)
}

// RuleDigest identifies a rule's contents the same way. Its key and where it
// came from are not part of it.
func RuleDigest(r *Rule) string {
	data, err := encodeYAML(r)
	return digest(data, err)
}

// digest of what could not be encoded is one that matches nothing.
func digest(data []byte, err error) string {
	if err != nil {
		return "sha256:invalid"
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
