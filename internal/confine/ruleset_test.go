// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"slices"
	"testing"

	"openshell.ai/openshell/policy"
)

func TestRulesetForDefault(t *testing.T) {
	r := RulesetFor(&policy.Policy{Version: 1})
	if r.Compatibility != "best_effort" || !r.IncludeWorkdir {
		t.Errorf("got compatibility %q, workdir %t", r.Compatibility, r.IncludeWorkdir)
	}
	if !slices.Equal(r.ReadOnly, baselineReadOnly) || !slices.Equal(r.ReadWrite, baselineReadWrite) {
		t.Errorf("got %q and %q, want the baseline", r.ReadOnly, r.ReadWrite)
	}
	if want := slices.Concat(baselineReadOnly, baselineReadWrite); !slices.Equal(r.Optional, want) {
		t.Errorf("optional: got %q, want %q", r.Optional, want)
	}
}

func TestRulesetFor(t *testing.T) {
	tests := []struct {
		name                          string
		fs                            policy.Filesystem
		readOnly, readWrite, optional []string // must be in the list
		notReadWrite, notOptional     []string // must not
	}{
		{
			name:      "policy and baseline",
			fs:        policy.Filesystem{ReadOnly: []string{"/data"}, ReadWrite: []string{"/out"}},
			readOnly:  []string{"/data", "/usr"},
			readWrite: []string{"/out", "/tmp"},
			optional:  []string{"/usr", "/tmp"}, notOptional: []string{"/data", "/out"},
		},
		{
			name:     "explicit read-only is not promoted",
			fs:       policy.Filesystem{ReadOnly: []string{"/tmp", "/dev/null/"}},
			readOnly: []string{"/tmp", "/dev/null"}, readWrite: []string{"/dev/shm"},
			notReadWrite: []string{"/tmp", "/dev/null"}, notOptional: []string{"/tmp", "/dev/null"},
		},
		{
			name:     "read-only below a baseline directory is not promoted by it",
			fs:       policy.Filesystem{ReadOnly: []string{"/tmp/fixtures"}},
			readOnly: []string{"/tmp/fixtures"}, notReadWrite: []string{"/tmp"},
		},
		{
			name:     "a similar name is not below",
			fs:       policy.Filesystem{ReadOnly: []string{"/tmpfixtures"}},
			readOnly: []string{"/tmpfixtures"}, readWrite: []string{"/tmp"},
		},
		{
			name:     "read-only above leaves the baseline writable",
			fs:       policy.Filesystem{ReadOnly: []string{"/"}},
			readOnly: []string{"/"}, readWrite: []string{"/tmp", "/dev/null"},
		},
		{
			name:      "read-write of a read-only baseline path",
			fs:        policy.Filesystem{ReadWrite: []string{"/opt", "/proc"}},
			readWrite: []string{"/opt", "/proc"}, readOnly: []string{"/usr"}, notOptional: []string{"/opt", "/proc"},
		},
		{
			name:      "repetitions and unclean paths",
			fs:        policy.Filesystem{ReadWrite: []string{"/out", "/out/", "//out/./"}},
			readWrite: []string{"/out"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := RulesetFor(&policy.Policy{Version: 1, Filesystem: &tt.fs})
			if r.IncludeWorkdir != tt.fs.IncludeWorkdir {
				t.Errorf("include_workdir is %t", r.IncludeWorkdir)
			}
			check := func(list string, got, want, not []string) {
				for _, p := range want {
					if n := count(got, p); n != 1 {
						t.Errorf("%s has %s %d times: %q", list, p, n, got)
					}
				}
				for _, p := range not {
					if slices.Contains(got, p) {
						t.Errorf("%s has %s: %q", list, p, got)
					}
				}
			}
			check("read_only", r.ReadOnly, tt.readOnly, tt.readWrite)
			check("read_write", r.ReadWrite, tt.readWrite, tt.notReadWrite)
			check("optional", r.Optional, tt.optional, tt.notOptional)
		})
	}
}

func count(list []string, s string) (n int) {
	for _, v := range list {
		if v == s {
			n++
		}
	}
	return n
}

func TestRulesetForCompatibility(t *testing.T) {
	for compatibility, want := range map[string]string{
		"":                                  policy.CompatibilityBestEffort,
		policy.CompatibilityBestEffort:      policy.CompatibilityBestEffort,
		policy.CompatibilityHardRequirement: policy.CompatibilityHardRequirement,
	} {
		r := RulesetFor(&policy.Policy{Version: 1, Landlock: &policy.Landlock{Compatibility: compatibility}})
		if r.Compatibility != want {
			t.Errorf("compatibility %q gives %q, want %q", compatibility, r.Compatibility, want)
		}
		r.KernelABI = 1
		if err := (Confinement{Mode: ModeEnforcing, Landlock: r}).Validate(); err != nil {
			t.Errorf("compatibility %q: %v", compatibility, err)
		}
	}
}

// The policy's own lists must survive: the same policy is used for every exec.
func TestRulesetForLeavesThePolicyAlone(t *testing.T) {
	paths := make([]string, 1, 64) // room to be appended to
	paths[0] = "/data"
	p := &policy.Policy{Version: 1, Filesystem: &policy.Filesystem{ReadOnly: paths}}
	RulesetFor(p)
	if got := paths[:2]; got[1] != "" {
		t.Errorf("the policy's list was appended to: %q", got)
	}
}
