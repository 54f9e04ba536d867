// SPDX-License-Identifier: Apache-2.0

// Package cases owns the table of what real clients, bundles and faults do and what must happen
// then, and how a test says that it shows a row of it:
//
//	cases.Show(t, "clients/half-close")
//
// make cases runs these tests and writes docs/cases.md. The package owns no test of a row.
package cases

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Table is a part of the table.
type Table struct {
	Name, Title string
	Rows        []Row
}

// Row is something that happens, and what is right then: what happens without a sandbox.
type Row struct {
	Name, Input, Right string
}

// Known reports whether there is a row of that name, as tests write it: TABLE/NAME.
func Known(name string) bool {
	table, row, _ := strings.Cut(name, "/")
	return slices.ContainsFunc(Tables, func(t Table) bool {
		return t.Name == table && slices.ContainsFunc(t.Rows, func(r Row) bool { return r.Name == row })
	})
}

// Verdict is what came of a test that shows a row.
type Verdict string

// The verdicts, from best to worst.
const (
	Passed  Verdict = "pass"
	Skipped Verdict = "skipped"
	Failed  Verdict = "FAIL"
)

// Record is a line of the file that OPENSHELL_CASES names.
type Record struct {
	Row     string  `json:"row"`
	Test    string  `json:"test"`
	Verdict Verdict `json:"verdict"`
}

// Show says that a test, or a part of one, shows rows of the table: where it passes, what is right
// in them happens. The names are literals of the file with the test: make cases looks for them
// there to know what to run.
func Show(t testing.TB, rows ...string) {
	t.Helper()
	for _, row := range rows {
		if !Known(row) {
			t.Fatalf("test/cases has no row %q", row)
		}
	}
	path := os.Getenv("OPENSHELL_CASES")
	if path == "" {
		return
	}
	t.Cleanup(func() {
		r := Record{Test: t.Name(), Verdict: Passed}
		switch {
		case t.Failed():
			r.Verdict = Failed
		case t.Skipped():
			r.Verdict = Skipped
		}
		for _, r.Row = range rows {
			if err := appendTo(path, r); err != nil {
				t.Error(err)
			}
		}
	})
}

// appendTo writes a line at once: tests run side by side, in several processes.
func appendTo(path string, r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("OPENSHELL_CASES: %w", err)
	}
	defer f.Close()
	_, err = f.Write(append(line, '\n'))
	return err
}
