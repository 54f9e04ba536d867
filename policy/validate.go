// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"maps"
	pathpkg "path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/internal/wildcard"
)

const (
	maxPathBytes       = 4096
	maxFilesystemPaths = 1024
	maxNameBytes       = 256
)

// validator collects what is wrong with a policy, wherever it came from.
type validator struct {
	problems Errors
	warnings []Warning
	// unreadable tells fields about which nothing can be said; nil: there are none.
	unreadable func(path string) bool
}

func (v *validator) silent(path string) bool { return v.unreadable != nil && v.unreadable(path) }

func (v *validator) problem(path, format string, args ...any) {
	if v.silent(path) {
		return
	}
	v.problems = append(v.problems, Problem{Field: path, Reason: fmt.Sprintf(format, args...)})
}

func (v *validator) warn(path, format string, args ...any) {
	if v.silent(path) {
		return
	}
	v.warnings = append(v.warnings, Warning{Field: path, Reason: fmt.Sprintf(format, args...)})
}

// Validate checks a policy that was not parsed but made. The error is Errors.
func (p *Policy) Validate() error {
	v := &validator{}
	v.policy(p)
	return v.problems.asError()
}

// Validate checks a rule on its own, as it would be under a key. The error is
// Errors.
func (r *Rule) Validate(key string) error {
	v := &validator{}
	v.rule(Child("network_policies", key), key, r)
	return v.problems.asError()
}

// plainText refuses what could deceive whoever reads the policy or its logs.
func (v *validator) plainText(path, s string, limit int) bool {
	switch {
	case !utf8.ValidString(s):
		v.problem(path, "is not valid UTF-8")
	case strings.ContainsFunc(s, printable.Deceptive):
		v.problem(path, "contains a control or invisible character: %+q", s[:min(len(s), 64)])
	case len(s) > limit:
		v.problem(path, "has %d bytes, more than %d", len(s), limit)
	default:
		return true
	}
	return false
}

func oneOf(value string, known ...string) bool { return value == "" || slices.Contains(known, value) }

func (v *validator) policy(p *Policy) {
	if p.Version != 1 {
		v.problem("version", "must be 1, not %d", p.Version)
	}
	if p.Filesystem != nil {
		v.filesystem(p.Filesystem)
	}
	if p.Landlock != nil && !oneOf(p.Landlock.Compatibility, CompatibilityBestEffort, CompatibilityHardRequirement) {
		v.problem("landlock.compatibility", "must be best_effort or hard_requirement, not %q", p.Landlock.Compatibility)
	}
	if p.Process != nil {
		v.identity("process.run_as_user", p.Process.RunAsUser)
		v.identity("process.run_as_group", p.Process.RunAsGroup)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Network)) {
		path := Child("network_policies", key)
		if p.Network[key] == nil {
			v.problem(path, "is empty: give it endpoints and binaries")
			continue
		}
		v.rule(path, key, p.Network[key])
	}
	v.ambiguities(p)
}

func (v *validator) filesystem(f *Filesystem) {
	const section = "filesystem_policy"
	if n := len(f.ReadOnly) + len(f.ReadWrite); n > maxFilesystemPaths {
		v.problem(section, "too many filesystem paths (%d > %d)", n, maxFilesystemPaths)
	}
	for i, p := range f.ReadOnly {
		v.filesystemPath(Element(section+".read_only", i), p)
	}
	for i, p := range f.ReadWrite {
		path := Element(section+".read_write", i)
		switch {
		case !v.filesystemPath(path, p):
		case pathpkg.Clean(p) == "/":
			v.problem(path, "read-write path is overly broad: %s", p)
		case ProcessMemory(p):
			v.problem(path,
				"leads to the memory of processes, /proc/PID/mem: make it read_only, or name the files below it: %s", p)
		}
	}
}

// ProcessMemory reports whether write access to a path, and all below it, would be
// access to /proc/PID/mem: to act as another program.
func ProcessMemory(p string) bool {
	rest, ok := strings.CutPrefix(pathpkg.Clean(p)+"/", "/proc/")
	if !ok {
		return false
	}
	process, rest, _ := strings.Cut(rest, "/")
	if thread, ok := strings.CutPrefix(rest, "task/"); ok {
		_, rest, _ = strings.Cut(thread, "/")
	}
	if _, err := strconv.ParseUint(process, 10, 32); err != nil && process != "" && process != "self" &&
		process != "thread-self" {
		return false
	}
	return rest == "" || rest == "mem/"
}

func (v *validator) filesystemPath(path, p string) bool {
	switch {
	case len(p) > maxPathBytes:
		v.problem(path, "path exceeds maximum length (%d > %d): %s...", len(p), maxPathBytes, printable.Text(p[:64]))
	case !v.plainText(path, p, maxPathBytes):
	case !strings.HasPrefix(p, "/"):
		v.problem(path, "path must be absolute (start with '/'): %s", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		v.problem(path, "path contains '..' traversal component: %s", p)
	default:
		return true
	}
	return false
}

// identity checks a user or group. Neither is applied by this project: who the
// workload runs as is the container engine's business.
func (v *validator) identity(path, who string) {
	if who == "" {
		return
	}
	id, err := strconv.ParseUint(who, 10, 32)
	if who != "sandbox" && (err != nil || id < 1 || id > 4294967294) {
		v.problem(path, "%s must be 'sandbox' or a numeric UID/GID in range [1, 4294967294], got '%s'",
			strings.TrimPrefix(path, "process."), printable.Text(who))
		return
	}
	v.warn(path, "has no effect: the container's user is the engine's choice")
}

func (v *validator) rule(path, key string, r *Rule) {
	if key == "" {
		v.problem(path, "a rule's key must not be empty")
	}
	v.plainText(path, key, maxNameBytes)
	v.plainText(path+".name", r.Name, maxNameBytes)
	switch {
	case r.Binaries == nil && r.Learned:
		v.problem(path+".binaries", "a learned rule must name its binary")
	case r.Binaries == nil:
		v.warn(path, "has no binaries: any program may use its endpoints")
	case len(r.Binaries) == 0:
		v.problem(path+".binaries", "is an empty list: name binaries, or remove it to mean any")
	}
	for i, b := range r.Binaries {
		v.binary(Element(path+".binaries", i)+".path", b.Path)
	}
	if len(r.Endpoints) == 0 {
		v.warn(path, "has no endpoints: it allows nothing")
	}
	for i := range r.Endpoints {
		v.endpoint(Element(path+".endpoints", i), &r.Endpoints[i])
	}
}

func (v *validator) binary(path, p string) {
	switch {
	case p == "":
		v.problem(path, "is required")
	case !v.plainText(path, p, maxPathBytes):
	case !strings.HasPrefix(p, "/") && !strings.HasPrefix(p, "**"):
		v.problem(path, "path must be absolute (start with '/'): %s", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		v.problem(path, "path contains '..' traversal component: %s", p)
	case strings.Contains(p, "*"):
		v.glob(path, p, '/')
	}
}

func (v *validator) glob(path, pattern string, separator byte) {
	if _, err := wildcard.CompileGlob(pattern, separator); err != nil {
		v.problem(path, "%v", err)
	}
}
