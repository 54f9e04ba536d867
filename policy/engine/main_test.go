// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"

	"openshell.ai/openshell/policy"
	"openshell.ai/openshell/policy/internal/policytest"
)

func mustCompile(t testing.TB, p *policy.Policy) *Engine {
	t.Helper()
	e, err := Compile(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func engine(t testing.TB, rules string) *Engine {
	t.Helper()
	return mustCompile(t, policytest.Network(t, rules))
}
