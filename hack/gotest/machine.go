// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"openshell.ai/openshell/internal/confine"
)

// machine says what tests cannot do here: the words that they use for it, and
// whether these are true. The first words that a reason contains decide.
type machine []excuse

type excuse struct {
	words string
	holds bool
}

func (m machine) excuses(reason string) bool {
	for _, e := range m {
		if strings.Contains(reason, e.words) {
			return e.holds
		}
	}
	return false
}

// landlockIoctl is the first Landlock ABI that restricts ioctl on devices
// (landlock(7)).
const landlockIoctl = 5

func thisMachine() machine {
	root := os.Geteuid() == 0
	abi, err := confine.LandlockABI()
	_, dockerErr := exec.LookPath("docker")
	status, statusErr := os.ReadFile("/proc/self/status")
	return machine{
		{"only root", !root},
		{"confined themselves", !root || statusErr != nil || !bytes.Contains(status, []byte("Seccomp:\t0\n"))},
		{"of amd64", runtime.GOARCH != "amd64"},
		{"restrict ioctl", err != nil || abi < landlockIoctl},
		{"andlock", err != nil},
		{"no docker command", dockerErr != nil},
		// What a test found by trying cannot be looked up.
		{"OPENSHELL_SPEED_RUNS is not set", os.Getenv("OPENSHELL_SPEED_RUNS") == ""}, // a measurement: make bench-net
		{"nerdctl could not be built", true},
		{"this kernel has no", true},
		// Clients that hack/deps does not install, and with them what they need.
		{"the host has no", true},
		{"the machine has no", true},
		{"LEARN_RELEASE is not set", os.Getenv("LEARN_RELEASE") == ""}, // it makes the fixtures
		{"not allowed to switch auditing", true},
		{"not with runc's own shim either", true},
	}
}
