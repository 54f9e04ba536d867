// SPDX-License-Identifier: Apache-2.0

// Package confine owns how a workload is confined inside its container: the
// Landlock ruleset that follows from a policy, and the files that carry it and
// the seccomp filters to openshell-init.
//
// It does not compile the filters (package filter, which needs cgo), apply
// anything (openshell-init, inside the container: cmd/openshell-init), mount the
// files or rewrite the bundle (package runtime).
package confine

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/policy"
)

// The directory below which openshell-init finds its files inside the container,
// and the names of all of them. It is on the container's own /dev, so that
// nothing is left in the image's layers.
const (
	Dir         = "/dev/.openshell"
	InitName    = "openshell-init"
	ConfigName  = "confinement"
	FilterName  = "filter.bpf"  // whose refusals are logged
	QuietName   = "quiet.bpf"   // whose refusals are not
	ProfileName = "profile.bpf" // a container's own, or empty
)

// AttendFlag is openshell-init's first argument once it is confined and stays a
// container's first process.
const AttendFlag = "--attend"

// NetworkFlag makes openshell-init hold a network namespace, see package netns.
const NetworkFlag = "--network"

// The modes of a Confinement.
const (
	ModeEnforcing  = "enforcing"
	ModePermissive = "permissive"
)

// Confinement is what openshell-init is to apply besides the filters.
type Confinement struct {
	// Mode is ModeEnforcing or ModePermissive.
	Mode string
	// Observed makes the launcher wait until the supervisor observes the
	// container's files.
	Observed bool
	// Landlock is nil exactly in permissive mode, where accesses are observed instead.
	Landlock *Ruleset
}

// Ruleset is what Landlock is to allow; all else in the filesystem is refused.
// A directory stands for its whole subtree.
type Ruleset struct {
	// Compatibility is that of the policy language.
	Compatibility string
	// KernelABI is the version of the kernel's Landlock interface, asked outside the
	// container, or NoLandlock. What has less inside was kept from it by something
	// else, such as a seccomp profile, and is not executed.
	KernelABI int
	// IncludeWorkdir adds the process's working directory to ReadWrite, unless it is "/".
	IncludeWorkdir bool
	// ReadOnly may be read and executed.
	ReadOnly []string
	// ReadWrite may be read, executed, changed, created and removed.
	ReadWrite []string
	// Optional are those of both lists that may be missing even where
	// Compatibility is HardRequirement.
	Optional []string
}

// Validate refuses a confinement that says less than it means, such as an
// enforcing one without a ruleset.
func (c Confinement) Validate() error {
	switch {
	case c.Mode != ModeEnforcing && c.Mode != ModePermissive:
		return fmt.Errorf("mode %q is not %s or %s", c.Mode, ModeEnforcing, ModePermissive)
	case c.Mode == ModeEnforcing && c.Landlock == nil:
		return errors.New("mode enforcing needs a landlock ruleset")
	case c.Mode == ModeEnforcing:
		return c.Landlock.validate()
	case c.Landlock != nil:
		return errors.New("mode permissive takes no landlock ruleset")
	}
	return nil
}

func (r *Ruleset) validate() error {
	hard := r.Compatibility == policy.CompatibilityHardRequirement
	switch {
	case !hard && r.Compatibility != policy.CompatibilityBestEffort:
		return fmt.Errorf("landlock compatibility %q is not %s or %s", r.Compatibility,
			policy.CompatibilityBestEffort, policy.CompatibilityHardRequirement)
	case r.KernelABI < 1 && r.KernelABI != NoLandlock:
		return fmt.Errorf("landlock kernel_abi %d is neither a version nor %d for none", r.KernelABI, NoLandlock)
	case hard && r.KernelABI == NoLandlock:
		return fmt.Errorf("landlock compatibility is %s: %w", r.Compatibility, ErrNoLandlock)
	}
	for _, p := range slices.Concat(r.ReadOnly, r.ReadWrite) {
		if !filepath.IsAbs(p) || !utf8.ValidString(p) || strings.ContainsRune(p, 0) {
			return fmt.Errorf("landlock path %q is not an absolute path in UTF-8", p)
		}
		if len(p) >= unix.PathMax {
			return fmt.Errorf("landlock path %.40q… has %d bytes: the kernel takes no path of %d", p, len(p), unix.PathMax)
		}
	}
	return nil
}

// ObservedName is the file below Dir that says that a container is observed.
// Containers that share the directory have mounts of their own of it, by whose id
// the file is called.
func ObservedName(mount uint64) string { return fmt.Sprintf("observed-%d", mount) }
