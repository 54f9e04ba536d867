// SPDX-License-Identifier: Apache-2.0

// Package confine owns how a workload is confined inside its container: the
// Landlock ruleset that follows from a policy, and the files that carry it and
// the seccomp filter to openshell-init.
//
// It does not compile the filter (package filter, which needs cgo), apply
// anything (package launch, inside the container), mount the files or rewrite the
// bundle (package runtime).
package confine

import (
	"errors"

	"openshell.ai/openshell/internal/confine/launch"
)

// The directory below which openshell-init finds its files inside the container,
// and the names of all of them. It is on the container's own /dev, so that
// nothing is left in the image's layers.
const (
	Dir        = launch.Dir
	InitName   = "openshell-init"
	AttendFlag = launch.AttendFlag
	FilterName = launch.FilterName
	ConfigName = launch.ConfigName
)

// The modes of a Confinement.
const (
	ModeEnforcing  = launch.ModeEnforcing
	ModePermissive = launch.ModePermissive
)

// Confinement is what openshell-init is to apply besides the filter.
type Confinement = launch.Confinement

// Ruleset is what Landlock is to allow.
type Ruleset = launch.Ruleset

// NoLandlock is the KernelABI of a Ruleset for a kernel that has no Landlock.
const NoLandlock = launch.NoLandlock

// LandlockABI returns the version of the kernel's Landlock interface, at least 1.
// The error says why there is none for the calling process, and the version is
// 0 then.
func LandlockABI() (int, error) { return launch.LandlockABI() }

// KernelLandlock returns the version of the kernel's Landlock interface, or
// NoLandlock. It has to be asked outside the container. Where the kernel's own
// answer cannot be had, that is an error.
func KernelLandlock() (int, error) {
	abi, err := launch.LandlockABI()
	if errors.Is(err, launch.ErrNoLandlock) {
		return NoLandlock, nil
	}
	return abi, err
}

// ObservedName is the file below Dir that says that a container is observed, by
// the id of the mount of Dir.
func ObservedName(mount uint64) string { return launch.ObservedName(mount) }
