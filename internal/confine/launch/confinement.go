// SPDX-License-Identifier: Apache-2.0

// Package launch is the half of the confinement that works inside the container:
// it reads what the other half (package confine) has written, and applies it to
// the calling thread, which then becomes the workload.
//
// It owns the format of the files between the halves, and the system calls. It
// decides nothing: which paths and which system calls is the business of packages
// confine and filter. It is linked into openshell-init, which is started for each
// container and each exec, so it has no cgo and few dependencies.
package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"openshell.ai/openshell/internal/fileio"
)

// The directory below which openshell-init finds its files inside the container,
// and their names.
const (
	Dir        = "/dev/.openshell"
	FilterName = "filter.bpf"
	ConfigName = "confinement.json"
)

// AttendFlag is openshell-init's first argument once it is confined and stays a
// container's first process.
const AttendFlag = "--attend"

// The modes of a Confinement.
const (
	ModeEnforcing  = "enforcing"
	ModePermissive = "permissive"
)

// The compatibilities of a Ruleset, as the policy language has them.
const (
	BestEffort      = "best_effort"
	HardRequirement = "hard_requirement"
)

// NoLandlock is the KernelABI of a kernel that has none. It is not zero, so that it
// has to be said.
const NoLandlock = -1

// Confinement is the content of the file ConfigName.
type Confinement struct {
	// Mode is ModeEnforcing or ModePermissive.
	Mode string `json:"mode"`
	// Observed makes the launcher wait until the supervisor observes the
	// container's files.
	Observed bool `json:"observed,omitempty"`
	// Landlock is nil exactly in permissive mode, where accesses are observed instead.
	Landlock *Ruleset `json:"landlock"`
}

// Ruleset is what Landlock is to allow; all else in the filesystem is refused.
// A directory stands for its whole subtree.
type Ruleset struct {
	// Compatibility is BestEffort or HardRequirement.
	Compatibility string `json:"compatibility"`
	// KernelABI is the version of the kernel's Landlock interface, asked outside the
	// container, or NoLandlock. What has less inside was kept from it by something
	// else, such as a seccomp profile, and is not executed.
	KernelABI int `json:"kernel_abi"`
	// IncludeWorkdir adds the process's working directory to ReadWrite, unless it is "/".
	IncludeWorkdir bool `json:"include_workdir"`
	// ReadOnly may be read and executed.
	ReadOnly []string `json:"read_only"`
	// ReadWrite may be read, executed, changed, created and removed.
	ReadWrite []string `json:"read_write"`
	// Optional are those of both lists that may be missing even where
	// Compatibility is HardRequirement.
	Optional []string `json:"optional"`
}

// The most that is read of the files, in bytes. The kernel takes no filter longer
// than BPF_MAXINSNS instructions (linux/bpf_common.h); a ruleset of 1024 paths of
// PATH_MAX bytes stays below the other.
const (
	MaxConfigSize   = 8 << 20
	maxFilterSize   = 4096 * instructionSize
	instructionSize = 8 // sizeof(struct sock_filter)
)

// readConfinement is strict about everything: a file that is not understood in
// full must not decide what a workload may do.
func readConfinement(dir string) (Confinement, error) {
	data, err := fileio.ReadFile(filepath.Join(dir, ConfigName), MaxConfigSize)
	if err != nil {
		return Confinement{}, err
	}
	return parseConfinement(data)
}

func parseConfinement(data []byte) (Confinement, error) {
	var c Confinement
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Confinement{}, fmt.Errorf("parse %s: %w", ConfigName, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Confinement{}, fmt.Errorf("parse %s: data after the end", ConfigName)
	}
	if err := c.Validate(); err != nil {
		return Confinement{}, fmt.Errorf("parse %s: %w", ConfigName, err)
	}
	return c, nil
}

func readFilter(dir string) ([]byte, error) {
	filter, err := fileio.ReadFile(filepath.Join(dir, FilterName), maxFilterSize)
	if err != nil {
		return nil, err
	}
	return filter, ValidateFilter(filter)
}

// ValidateFilter checks what the kernel cannot tell: that the bytes are whole
// instructions. The program itself is checked by the kernel on loading.
func ValidateFilter(filter []byte) error {
	if len(filter) == 0 || len(filter)%instructionSize != 0 || len(filter) > maxFilterSize {
		return fmt.Errorf("%s: %d bytes are not from 1 to %d seccomp instructions of %d bytes",
			FilterName, len(filter), maxFilterSize/instructionSize, instructionSize)
	}
	return nil
}

// Validate refuses a confinement that says less than it means, such as an
// enforcing one without a ruleset.
func (c Confinement) Validate() error {
	switch c.Mode {
	case ModeEnforcing:
		if c.Landlock == nil {
			return errors.New("mode enforcing needs a landlock ruleset")
		}
		return c.Landlock.validate()
	case ModePermissive:
		if c.Landlock != nil {
			return errors.New("mode permissive takes no landlock ruleset")
		}
		return nil
	default:
		return fmt.Errorf("mode %q is not %s or %s", c.Mode, ModeEnforcing, ModePermissive)
	}
}

func (r *Ruleset) validate() error {
	if r.Compatibility != BestEffort && r.Compatibility != HardRequirement {
		return fmt.Errorf("landlock compatibility %q is not %s or %s", r.Compatibility, BestEffort, HardRequirement)
	}
	if r.KernelABI < 1 && r.KernelABI != NoLandlock {
		return fmt.Errorf("landlock kernel_abi %d is neither a version nor %d for none", r.KernelABI, NoLandlock)
	}
	for _, p := range slices.Concat(r.ReadOnly, r.ReadWrite) {
		// JSON carries text only: other bytes would name another path on reading.
		if !filepath.IsAbs(p) || !utf8.ValidString(p) {
			return fmt.Errorf("landlock path %q is not an absolute path in UTF-8", p)
		}
	}
	return nil
}
