// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"testing"
	"time"
)

func TestDeaths(t *testing.T) {
	for _, tt := range []struct {
		at   []time.Duration
		last bool // is one too many
	}{
		{[]time.Duration{0}, false},
		{[]time.Duration{0, 0}, false},
		{[]time.Duration{0, 0, 0}, true},
		{[]time.Duration{0, 30 * time.Second, 59 * time.Second}, true},
		{[]time.Duration{0, 30 * time.Second, 60 * time.Second}, false},
		{[]time.Duration{0, 40 * time.Second, 80 * time.Second, 120 * time.Second}, false},
		{[]time.Duration{0, 50 * time.Second, 60 * time.Second, 109 * time.Second}, true},
	} {
		var d deaths
		begun := time.Now()
		for i, at := range tt.at {
			if got, want := d.add(begun.Add(at)), tt.last && i == len(tt.at)-1; got != want {
				t.Errorf("%v: at %s: %v", tt.at, at, got)
			}
		}
	}
}

func TestArguments(t *testing.T) {
	a := Arguments{Log: "/l", Closed: "/c", Held: 7}
	if got, err := parse(a.List()); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	for _, args := range [][]string{nil, {"/l"}, {"/l", "/c", "x"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is understood", args)
		}
	}
}
