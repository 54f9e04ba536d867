// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
)

// write makes a package of tests.
func write(t *testing.T, text string) (root string) {
	t.Helper()
	root = t.TempDir()
	dir := filepath.Join(root, "e2e")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package e2e_test\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFind(t *testing.T) {
	found, err := find(write(t, `
func TestOne(t *testing.T) { cases.Show(t, "clients/half-close", "faults/killed exec") }
func TestTable(t *testing.T) { for _, row := range table { cases.Show(t, row) } }
func TestHelped(t *testing.T) { helper(t) }
func TestNone(t *testing.T) {}
func TestMain(m *testing.M) { helper(nil) }
func helper(t *testing.T) { cases.Show(t, "clients/upgrade"); helper(t) }
var table = []string{"bundles/exec before start", "something else"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []test{
		{"e2e", "TestHelped", []string{"clients/upgrade"}},
		{"e2e", "TestOne", []string{"clients/half-close", "faults/killed exec"}},
		{"e2e", "TestTable", []string{"bundles/exec before start"}},
	}
	if !slices.EqualFunc(found, want, func(a, b test) bool { return a.dir == b.dir && a.name == b.name && slices.Equal(a.rows, b.rows) }) {
		t.Errorf("%+v", found)
	}
}

func TestFindRefuses(t *testing.T) {
	if _, err := find(write(t, `func TestOne(t *testing.T) { cases.Show(t, "clients/halfclose") }`)); err == nil || !strings.Contains(err.Error(), "a_test.go:2:") {
		t.Error(err)
	}
	if _, err := find(write(t, `func`)); err == nil {
		t.Error("no Go, and no error")
	}
}

// The tests of this module name rows that exist.
func TestOwn(t *testing.T) {
	found, err := find("../../../..")
	if err != nil || len(found) == 0 {
		t.Error(found, err)
	}
}

func TestJudge(t *testing.T) {
	found := []test{
		{"test/e2e", "TestA", []string{"clients/upgrade", "clients/half-close"}},
		{"test/e2e", "TestAB", []string{"clients/upgrade", "faults/killed exec"}},
		{"test/e2e", "TestC", []string{"clients/Java"}},
	}
	rows := judge(found, []cases.Record{
		{Row: "clients/upgrade", Test: "TestA/sub", Verdict: cases.Passed},
		{Row: "clients/upgrade", Test: "TestAB", Verdict: cases.Failed},
		{Row: "clients/half-close", Test: "TestA", Verdict: cases.Passed},
		{Row: "clients/half-close", Test: "TestA/b", Verdict: cases.Skipped},
		{Row: "clients/Java", Test: "TestC", Verdict: cases.Passed},
	})
	for row, want := range map[string]cases.Verdict{
		"clients/upgrade": cases.Failed, "clients/half-close": cases.Skipped, "faults/killed exec": noVerdict, "clients/Java": cases.Passed,
	} {
		if rows[row].Verdict != want {
			t.Errorf("%s: %+v, want %s", row, rows[row], want)
		}
	}
	page := string(render(rows))
	for _, want := range []string{
		"| FAIL | e2e.TestA<br>e2e.TestAB |", "| no test |  |", "| pass | e2e.TestC |", `nc -N host 80`,
		"| half-close | `printf 'GET / HTTP/1.0\\r\\n\\r\\n' \\| nc -N",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	var out strings.Builder
	if err := summarize(&out, rows, nil); err == nil {
		t.Error("a row fails, and no error")
	}
	if err := summarize(&out, rows, []string{"clients/Java"}); err != nil {
		t.Error(err)
	}
}
