// SPDX-License-Identifier: Apache-2.0

package policy

// Default is the built-in restrictive policy: the working directory, and
// nothing on the network. The baseline of system paths that every sandbox gets
// is added by the confinement, not here.
func Default() *Policy {
	return &Policy{
		Version:    1,
		Filesystem: &Filesystem{IncludeWorkdir: true},
		Landlock:   &Landlock{Compatibility: CompatibilityBestEffort},
	}
}
