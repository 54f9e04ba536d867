// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/policy"
)

// instructionSize is sizeof(struct sock_filter), maxInstructions the most that the
// kernel takes (BPF_MAXINSNS in linux/bpf_common.h).
const (
	instructionSize = 8
	maxInstructions = 4096
)

// WriteDir writes the filters, as filter.Compile returns them, and the confinement
// into dir, which the runtime binds read-only at Dir. The launcher itself is put
// there by the runtime, and so is a container's own part of the profile, for which
// there is an empty file. Everything is readable by every user because
// openshell-init runs as the workload's.
func WriteDir(dir string, loud, quiet []byte, c Confinement) error {
	if err := errors.Join(validateFilter(loud), validateFilter(quiet)); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	// MkdirAll is subject to the umask and leaves an existing directory as it is.
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	for name, data := range map[string][]byte{FilterName: loud, QuietName: quiet, ProfileName: nil} {
		if err := fileio.Replace(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("write confinement: %w", err)
		}
	}
	return WriteConfinement(dir, c)
}

// validateFilter checks what the kernel cannot tell: that the bytes are whole
// instructions. The program itself is checked by the kernel on loading.
func validateFilter(filter []byte) error {
	if len(filter) == 0 || len(filter)%instructionSize != 0 || len(filter) > maxInstructions*instructionSize {
		return fmt.Errorf("a filter of %d bytes is not from 1 to %d seccomp instructions of %d bytes",
			len(filter), maxInstructions, instructionSize)
	}
	return nil
}

// WriteConfinement replaces the confinement in dir, for every process that is
// started from then on: a reader sees either the old one or the new one.
func WriteConfinement(dir string, c Confinement) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	if err := fileio.Replace(filepath.Join(dir, ConfigName), c.encode(), 0o644); err != nil {
		return fmt.Errorf("write confinement: %w", err)
	}
	return nil
}

// WriteProfile writes what a container's own filter refuses besides, as
// filter.CompileRefusal returns it, into dir. It returns the file, which the runtime
// binds over ProfileName of that container.
func WriteProfile(dir, container string, filter []byte) (path string, err error) {
	path = filepath.Join(dir, container+"."+ProfileName)
	if err := validateFilter(filter); err != nil {
		return "", fmt.Errorf("write confinement: %w", err)
	}
	if err := fileio.Replace(path, filter, 0o644); err != nil {
		return "", fmt.Errorf("write confinement: %w", err)
	}
	return path, nil
}

// encode returns a valid confinement as openshell-init reads it (its confine.c has
// the format): words that each end with a zero byte, so that a C program reads them
// without more memory than the longest path takes.
func (c Confinement) encode() []byte {
	var b bytes.Buffer
	words := func(list ...string) {
		for _, word := range list {
			b.WriteString(word)
			b.WriteByte(0)
		}
	}
	words("openshell-confinement-1")
	if c.Observed {
		words("observed")
	}
	if c.Landlock == nil || c.Landlock.KernelABI == NoLandlock {
		words("unrestricted", "end")
		return b.Bytes()
	}
	r := c.Landlock
	number := func(n uint64) string { return strconv.FormatUint(n, 16) }
	rights, flags := handled(r.KernelABI)
	words("landlock", strconv.Itoa(r.KernelABI), number(rights), number(uint64(flags)))
	if r.IncludeWorkdir {
		words("workdir", number(rightsRead|rightsWrite))
	}
	paths := func(list []string, rights uint64) {
		for _, p := range list {
			need := "optional"
			if r.Compatibility == policy.CompatibilityHardRequirement && !slices.Contains(r.Optional, p) {
				need = "required"
			}
			words("path", number(rights), need, p)
		}
	}
	paths(r.ReadOnly, rightsRead)
	paths(r.ReadWrite, rightsRead|rightsWrite)
	words("end")
	return b.Bytes()
}
