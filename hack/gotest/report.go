// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is a line of go test -json (cmd/test2json).
type event struct {
	Action, Package, Test, Output string
}

// report turns events back into what go test prints without -v, with the skipped
// tests added.
type report struct {
	out       io.Writer
	machine   machine
	packages  map[string]*result
	unexcused int // tests that were skipped and should have run
}

// result is what has been seen of a package.
type result struct {
	tests   map[string]*strings.Builder // the output of each test that has not ended
	shown   strings.Builder             // of those that failed or were skipped
	own     strings.Builder             // of the package itself
	skipped bool                        // by a test that should have run
}

func newReport(out io.Writer, m machine) *report {
	return &report{out: out, machine: m, packages: map[string]*result{}}
}

func (r *report) add(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		_, _ = r.out.Write(line) // not every failure of the tool is JSON
		return
	}
	if e.Package == "" { // of the build
		_, _ = io.WriteString(r.out, e.Output)
		return
	}
	p := r.packages[e.Package]
	if p == nil {
		p = &result{tests: map[string]*strings.Builder{}}
		r.packages[e.Package] = p
	}
	if e.Test == "" {
		r.addPackage(p, e)
	} else {
		r.addTest(p, e)
	}
}

func (r *report) addTest(p *result, e event) {
	output := p.tests[e.Test]
	if output == nil {
		output = &strings.Builder{}
		p.tests[e.Test] = output
	}
	switch e.Action {
	case "output":
		output.WriteString(e.Output)
	case "fail":
		p.shown.WriteString(quiet(output.String()))
	case "skip":
		text := quiet(output.String())
		p.shown.WriteString(text)
		if !r.machine.excuses(text) {
			fmt.Fprintf(&p.shown, "--- FAIL: %s: this machine can run it: it must not be skipped\n", e.Test)
			p.skipped = true
			r.unexcused++
		}
	}
	if e.Action == "pass" || e.Action == "fail" || e.Action == "skip" {
		delete(p.tests, e.Test)
	}
}

func (r *report) addPackage(p *result, e event) {
	switch e.Action {
	case "output":
		if e.Output != "PASS\n" {
			p.own.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		for _, unfinished := range p.tests { // a crash
			p.shown.WriteString(quiet(unfinished.String()))
		}
		own := p.own.String()
		if p.skipped && e.Action == "pass" {
			own = strings.Replace("\n"+own, "\nok  \t", "\nFAIL\t", 1)[1:]
		}
		_, _ = io.WriteString(r.out, p.shown.String()+own)
		delete(r.packages, e.Package)
	}
}

// quiet leaves out the lines that only go test -v prints.
func quiet(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
