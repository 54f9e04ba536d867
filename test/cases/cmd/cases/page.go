// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/test/cases"
)

// Two more verdicts than a test can record.
const (
	noTest    cases.Verdict = "no test"
	noVerdict cases.Verdict = "FAIL: the test did not get to it"
)

// verdict is what came of a row.
type verdict struct {
	cases.Verdict
	tests []string // that show it: DIR.TEST
}

// ranks is from best to worst: the worst of a row's tests counts.
var ranks = []cases.Verdict{cases.Passed, cases.Skipped, cases.Failed, noVerdict}

// judge tells of each row what came of it.
func judge(found []test, records []cases.Record) map[string]verdict {
	rows := map[string]verdict{}
	for _, t := range found {
		for _, row := range t.rows {
			v, seen := rows[row]
			if !seen {
				v.Verdict = cases.Passed
			}
			v.Verdict = worst(v.Verdict, ofTest(t, row, records))
			v.tests = append(v.tests, path.Base(t.dir)+"."+t.name)
			rows[row] = v
		}
	}
	return rows
}

func ofTest(t test, row string, records []cases.Record) cases.Verdict {
	v, seen := cases.Passed, false
	for _, r := range records {
		if name, _, _ := strings.Cut(r.Test, "/"); name == t.name && r.Row == row {
			v, seen = worst(v, r.Verdict), true
		}
	}
	if !seen {
		return noVerdict
	}
	return v
}

func worst(a, b cases.Verdict) cases.Verdict {
	return ranks[max(slices.Index(ranks, a), slices.Index(ranks, b))]
}

func of(rows map[string]verdict, table cases.Table, row cases.Row) verdict {
	if v, ok := rows[table.Name+"/"+row.Name]; ok {
		return v
	}
	return verdict{Verdict: noTest}
}

// render writes the page.
func render(rows map[string]verdict) []byte {
	var b bytes.Buffer
	b.WriteString(`# Cases

What real clients, bundles and broken machines do, and what must happen then: what happens without a
sandbox, but for what the policy denies. *p* is a permissive sandbox, *e* an enforcing one after
` + "`approve --all`" + `. Each verdict comes from the tests beside it, which run real containers. This page is
written by ` + "`make cases`" + `; [CONTRIBUTING.md](../CONTRIBUTING.md#cases) says how a test gets into it.

| table | rows | pass | no test | other |
|---|---|---|---|---|
`)
	for _, t := range cases.Tables {
		n := map[cases.Verdict]int{}
		for _, r := range t.Rows {
			n[of(rows, t, r).Verdict]++
		}
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", t.Title, len(t.Rows), n[cases.Passed], n[noTest], len(t.Rows)-n[cases.Passed]-n[noTest])
	}
	for _, t := range cases.Tables {
		fmt.Fprintf(&b, "\n## %s\n\n| case | input | right | verdict | tests |\n|---|---|---|---|---|\n", t.Title)
		for _, r := range t.Rows {
			v := of(rows, t, r)
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(r.Name), cell(r.Input), cell(r.Right), v.Verdict, strings.Join(v.tests, "<br>"))
		}
	}
	return b.Bytes()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// summarize writes a line for each row, and fails where one is not right.
func summarize(w io.Writer, rows map[string]verdict, only []string) error {
	wrong := false
	for _, t := range cases.Tables {
		for _, r := range t.Rows {
			name := t.Name + "/" + r.Name
			if only != nil && !slices.Contains(only, name) {
				continue
			}
			v := of(rows, t, r)
			wrong = wrong || v.Verdict == cases.Failed || v.Verdict == noVerdict
			fmt.Fprintf(w, "%-44s %-8s %s\n", name, v.Verdict, strings.Join(v.tests, " "))
		}
	}
	if wrong {
		return errors.New("a case is not as it must be")
	}
	return nil
}

// writeList writes which tests show each row.
func writeList(w io.Writer, found []test) error {
	tests := map[string][]string{}
	for _, t := range found {
		for _, row := range t.rows {
			tests[row] = append(tests[row], t.dir+"."+t.name)
		}
	}
	for _, row := range slices.Sorted(maps.Keys(tests)) {
		if _, err := fmt.Fprintf(w, "%-44s %s\n", row, strings.Join(tests[row], " ")); err != nil {
			return err
		}
	}
	return nil
}
