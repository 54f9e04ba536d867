// SPDX-License-Identifier: Apache-2.0

// Package policytest owns what the tests of the packages above the policy language share.
package policytest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
)

// Seeds returns how many random cases to try: few, which suits every day, or as
// many as POLICY_SEEDS says.
func Seeds(few uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("POLICY_SEEDS"), 10, 32); err == nil {
		return n
	}
	return few
}

// Load parses a policy of testdata.
func Load(t testing.TB, name string) *policy.Policy {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return MustParse(t, string(data))
}

func MustParse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, _, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Network makes a policy from the text of network_policies' entries.
func Network(t testing.TB, rules string) *policy.Policy {
	t.Helper()
	return MustParse(t, "version: 1\nnetwork_policies:\n"+Indent(rules))
}

func Indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}

func Text(t *testing.T, p *policy.Policy) string {
	data, err := policy.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
