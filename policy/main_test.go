// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// seeds returns how many random cases to try: few, which suits every day, or as
// many as POLICY_SEEDS says.
func seeds(few uint64) uint64 {
	if n, err := strconv.ParseUint(os.Getenv("POLICY_SEEDS"), 10, 32); err == nil {
		return n
	}
	return few
}

// load parses a policy of testdata.
func load(t testing.TB, name string) *Policy {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(data))
}

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, _, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// network makes a policy from the text of network_policies' entries.
func network(t testing.TB, rules string) *Policy {
	t.Helper()
	return mustParse(t, "version: 1\nnetwork_policies:\n"+indent(rules))
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}

func text(t *testing.T, p *Policy) string {
	data, err := Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
