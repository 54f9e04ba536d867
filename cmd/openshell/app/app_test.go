// SPDX-License-Identifier: Apache-2.0

package app

import (
	"slices"
	"strings"
	"testing"
)

func TestConfigBehindCommand(t *testing.T) {
	for _, tt := range [][2]string{
		{"--config F ls -q", "ls --config F -q"}, {"--config=F ls", "ls --config=F"}, {"ls --config F", "ls --config F"},
		{"--config F", "--config F"}, {"--config", "--config"}, {"--configs F ls", "--configs F ls"}, {"", ""},
	} {
		if got := configBehindCommand(strings.Fields(tt[0])); !slices.Equal(got, strings.Fields(tt[1])) {
			t.Errorf("%q: %q", tt[0], got)
		}
	}
}

func TestUnknownCommand(t *testing.T) {
	for name, want := range map[string]string{
		"aprove": "did you mean approve?", "lss": "did you mean ls?", "polcy": "did you mean policy?", "craete": "did you mean create?",
		"frobnicate": "openshell --help", "\x1b[2J": `"\x1b[2J"`, strings.Repeat("x", 1<<16): "openshell --help",
	} {
		if err := unknownCommand(name); !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}
