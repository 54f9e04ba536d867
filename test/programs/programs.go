// SPDX-License-Identifier: Apache-2.0

// Package programs builds what tests of real containers need: the programs under
// test, those that containers run, and the engines. It runs none of them.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// dynamic are the programs with C code. All others are static, for containers
// that have no libraries.
var dynamic = []string{"openshell", "containerd-shim-openshell-v1"}

// Build compiles the package in a directory. Its program is called as out ends.
func Build(out, dir string) error {
	cmd := exec.Command("go", "build", "-o", out, dir)
	if filepath.Base(out) == "openshell-init" { // a C program
		cmd = exec.Command(filepath.Join(dir, "../../hack/launcher"), out)
	} else if !slices.Contains(dynamic, filepath.Base(out)) {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", dir, err, text)
	}
	return nil
}

// UnderTest returns the absolute directory that has the named commands of this
// module: the one that OPENSHELL_BIN names, or a new one below dir. It is for
// tests two levels below the module's root.
func UnderTest(dir string, names ...string) (string, error) {
	if bin := os.Getenv("OPENSHELL_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "bin")
	for _, name := range names {
		if err := Build(filepath.Join(bin, name), "../../cmd/"+name); err != nil {
			return "", err
		}
	}
	return bin, nil
}

// Engines returns the directory with the newest engines, which hack/tools builds
// once. It is for tests two levels below the module's root.
func Engines() (string, error) {
	cmd := exec.Command("../../hack/tools")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build the engines: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
