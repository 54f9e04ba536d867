// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const (
		pass    = `{"Action":"output","Package":"m/p","Test":"TestA","Output":"=== RUN   TestA\n"}|{"Action":"pass","Package":"m/p","Test":"TestA"}`
		failed  = `{"Action":"output","Package":"m/p","Test":"TestB","Output":"    b_test.go:1: broken\n"}|{"Action":"output","Package":"m/p","Test":"TestB","Output":"--- FAIL: TestB (0.00s)\n"}|{"Action":"fail","Package":"m/p","Test":"TestB"}`
		skipped = `{"Action":"output","Package":"m/p","Test":"TestC","Output":"    c_test.go:1: no moon\n"}|{"Action":"output","Package":"m/p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}|{"Action":"skip","Package":"m/p","Test":"TestC"}`
		good    = `{"Action":"output","Package":"m/p","Output":"PASS\n"}|{"Action":"output","Package":"m/p","Output":"ok  \tm/p\t0.01s\n"}|{"Action":"pass","Package":"m/p"}`
		bad     = `{"Action":"output","Package":"m/p","Output":"FAIL\n"}|{"Action":"output","Package":"m/p","Output":"FAIL\tm/p\t0.01s\n"}|{"Action":"fail","Package":"m/p"}`
	)
	night := machine{{"no moon", true}, {"no", false}}
	day := machine{{"no moon", false}, {"no", true}}
	for name, test := range map[string]struct {
		events    []string
		machine   machine
		want      string
		unexcused int
	}{
		"passed": {[]string{pass, good}, nil, "ok  \tm/p\t0.01s\n", 0},
		"failed": {[]string{pass, failed, bad}, nil,
			"    b_test.go:1: broken\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\tm/p\t0.01s\n", 0},
		"skipped with reason": {[]string{skipped, good}, night,
			"    c_test.go:1: no moon\n--- SKIP: TestC (0.00s)\nok  \tm/p\t0.01s\n", 0},
		"skipped without": {[]string{skipped, good}, day,
			"    c_test.go:1: no moon\n--- SKIP: TestC (0.00s)\n--- FAIL: TestC: this machine can run it: it must not be skipped\nFAIL\tm/p\t0.01s\n", 1},
		"skipped for an unknown reason": {[]string{skipped, bad}, nil,
			"    c_test.go:1: no moon\n--- SKIP: TestC (0.00s)\n--- FAIL: TestC: this machine can run it: it must not be skipped\nFAIL\nFAIL\tm/p\t0.01s\n", 1},
		"crashed": {[]string{`{"Action":"output","Package":"m/p","Test":"TestD","Output":"panic: x\n"}`, bad}, nil,
			"panic: x\nFAIL\nFAIL\tm/p\t0.01s\n", 0},
		"not built": {[]string{`{"Action":"build-output","ImportPath":"m/p","Output":"p.go:1: undefined: x\n"}`, bad}, nil,
			"p.go:1: undefined: x\nFAIL\nFAIL\tm/p\t0.01s\n", 0},
		"not JSON": {[]string{"go: no such tool\n"}, nil, "go: no such tool\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out, test.machine)
			for line := range strings.SplitSeq(strings.Join(test.events, "|"), "|") {
				r.add([]byte(line))
			}
			if out.String() != test.want || r.unexcused != test.unexcused {
				t.Errorf("got %d unexcused and\n%s\nwant %d and\n%s", r.unexcused, out.String(), test.unexcused, test.want)
			}
		})
	}
}
