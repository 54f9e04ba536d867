// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"log/slog"

	"openshell.ai/openshell/internal/audit"
	kernel "openshell.ai/openshell/internal/confine/denials"
	"openshell.ai/openshell/internal/confine/filter"
)

// maxCalls is how many different refused system calls of a container are recorded.
const maxCalls = 64

// readCalls records which system calls are refused to a container's processes that programs
// do not expect to be refused, each once for a program. The kernel tells of them in the host's
// network namespace.
func (s *Sandbox) readCalls(pid int) (stop func()) {
	failed := func(reason string) { slog.Warn("read the kernel's log", "reason", reason) }
	r, err := kernel.OpenCalls(membersOf(pid))
	if err != nil {
		failed(err.Error())
		return func() {}
	}
	type refused struct {
		binary string
		number int
		arch   uint32
		killed bool
	}
	known := map[refused]bool{}
	take := func(c kernel.Call) {
		key := refused{c.Binary, c.Number, c.Arch, c.Killed}
		if known[key] || len(known) >= maxCalls {
			return
		}
		known[key] = true
		s.recordCall(c)
	}
	return follow("which system calls were refused", r, func() error { return r.ReadCalls(take) }, failed)
}

func (s *Sandbox) recordCall(c kernel.Call) {
	what, effect := filter.Name(c.Arch, c.Number), "is refused to"
	if c.Killed {
		effect = "has killed"
	}
	s.record(audit.Event{Class: audit.ClassFinding, Activity: "CREATE", Severity: audit.SeverityLow, Message: fmt.Sprintf(
		"system call %s %s %s (%d), by a seccomp filter: see docs/security.md", what, effect,
		audit.Escape(c.Binary, maxNamed), c.PID)})
}
