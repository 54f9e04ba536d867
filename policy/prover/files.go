// SPDX-License-Identifier: Apache-2.0

package prover

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/printable"
	"openshell.ai/openshell/policy"
)

// files compares the filesystem sections and what becomes of them where the
// kernel cannot confine.
func (c *containment) files(p, maximum *policy.Policy) {
	const section = "filesystem_policy"
	files, most := p.FilesystemRules(), maximum.FilesystemRules()
	if files.IncludeWorkdir && !most.IncludeWorkdir {
		c.exceeds(Excess{Field: section + ".include_workdir", What: "read-write the working directory",
			Reason: "cannot be shown to be within the maximum, which does not include it"})
	}
	writable := most.ReadWrite
	readable := slices.Concat(most.ReadOnly, writable)
	check := func(list string, paths, within []string) {
		for i, name := range paths {
			if !slices.ContainsFunc(within, func(dir string) bool { return inSubtree(path.Clean(name), path.Clean(dir)) }) {
				c.exceeds(Excess{Field: policy.Element(section+"."+list, i), What: strings.ReplaceAll(list, "_", "-") + " " +
					printable.Text(name),
					Reason: "no path of the maximum contains it"})
			}
		}
	}
	check("read_only", files.ReadOnly, readable)
	check("read_write", files.ReadWrite, writable)
	if maximum.RequiresLandlock() && !p.RequiresLandlock() {
		c.exceeds(Excess{Field: "landlock.compatibility", What: policy.CompatibilityBestEffort,
			Reason: "the maximum says " + policy.CompatibilityHardRequirement + ": files must not stay unconfined"})
	}
}

// inSubtree reports whether a clean path is the directory or below it.
func inSubtree(name, dir string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(dir, "/"))
}

// process compares the identities: what the maximum leaves open, anybody may be.
func (c *containment) process(p, maximum *policy.Policy) {
	var own, most policy.Process
	if p.Process != nil {
		own = *p.Process
	}
	if maximum.Process != nil {
		most = *maximum.Process
	}
	check := func(field, who, want string) {
		if want != "" && who != want {
			c.exceeds(Excess{Field: "process." + field, What: cmp.Or(who, "anybody"), Reason: "the maximum says " + want})
		}
	}
	check("run_as_user", own.RunAsUser, most.RunAsUser)
	check("run_as_group", own.RunAsGroup, most.RunAsGroup)
}
