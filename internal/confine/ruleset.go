// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"path"
	"slices"

	"openshell.ai/openshell/internal/abspath"
	"openshell.ai/openshell/policy"
)

// The baseline is what nearly every program needs, and what no policy should
// have to spell out. Paths that an image lacks are left out.
var (
	baselineReadOnly = []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/app", "/etc",
		"/proc", "/sys", "/var/log", "/dev/urandom", "/dev/random", "/dev/zero", "/dev/full",
		Dir + "/tls", // the sandbox's CA, where it cannot be in /etc
	}
	baselineReadWrite = []string{
		"/tmp", "/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts", "/dev/shm",
	}
)

// RulesetFor returns the policy's filesystem rules with the baseline added. Its
// KernelABI is left to whoever applies it.
//
// The baseline never promotes what the policy says. Landlock grants add up along
// a path, so a baseline directory is not made writable when the policy names it,
// or anything below it, read-only.
//
// What the baseline adds is Optional in the result; what the policy names is not.
func RulesetFor(p *policy.Policy) *Ruleset {
	rules := p.FilesystemRules()
	r := &Ruleset{
		Compatibility:  policy.CompatibilityBestEffort,
		IncludeWorkdir: rules.IncludeWorkdir,
		ReadOnly:       cleanPaths(rules.ReadOnly),
		ReadWrite:      cleanPaths(rules.ReadWrite),
	}
	if p.Landlock != nil && p.Landlock.Compatibility != "" {
		r.Compatibility = p.Landlock.Compatibility
	}
	explicit := slices.Concat(r.ReadOnly, r.ReadWrite)
	for _, dir := range baselineReadOnly {
		if !slices.Contains(explicit, dir) {
			r.ReadOnly = append(r.ReadOnly, dir)
			r.Optional = append(r.Optional, dir)
		}
	}
	explicitReadOnly := cleanPaths(rules.ReadOnly)
	for _, dir := range baselineReadWrite {
		promotes := slices.ContainsFunc(explicitReadOnly, func(p string) bool { return abspath.Within(p, dir) })
		if !promotes && !slices.Contains(explicit, dir) {
			r.ReadWrite = append(r.ReadWrite, dir)
			r.Optional = append(r.Optional, dir)
		}
	}
	return r
}

// cleanPaths normalises paths so that they can be compared, and drops repetitions.
func cleanPaths(paths []string) []string {
	var clean []string
	for _, p := range paths {
		if p = path.Clean(p); !slices.Contains(clean, p) {
			clean = append(clean, p)
		}
	}
	return clean
}
