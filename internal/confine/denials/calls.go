// SPDX-License-Identifier: Apache-2.0

package denials

import "strconv"

// typeSeccomp is the type of records of what a seccomp filter refused (AUDIT_SECCOMP in linux/audit.h). The
// kernel writes them with auditing off too: of what kills, and of what filters refuse that were loaded
// to be logged.
const typeSeccomp = 1326

// Call is a system call that a seccomp filter refused.
type Call struct {
	PID    int    // as seen from outside
	Binary string // of that process
	Number int    // of the architecture
	Arch   uint32 // AUDIT_ARCH_* of linux/audit.h
	Killed bool   // the process, or its thread
}

// OpenCalls starts reading what seccomp filters refuse to processes that are ours, as Open
// does for Landlock. Records come to the host's own network namespace only.
func OpenCalls(ours func(pid int) bool) (*Reader, error) { return open(ours) }

// ReadCalls reports refused calls until the reader is closed. Records that come faster than they are read are
// left out.
func (r *Reader) ReadCalls(report func(Call)) error {
	return r.each(func(string) {}, func(kind uint16, text string) {
		if c, ok := parseCall(kind, text); ok && r.ours(c.PID) {
			report(c)
		}
	})
}

// parseCall reads a record of a refused call, and returns false for any other.
func parseCall(kind uint16, text string) (c Call, ok bool) {
	if kind != typeSeccomp {
		return Call{}, false
	}
	rec, ok := parse(text)
	if !ok || rec.pid == 0 {
		return Call{}, false
	}
	c = Call{PID: rec.pid, Binary: rec.exe, Killed: rec.signal != 0}
	arch, archErr := strconv.ParseUint(rec.arch, 16, 32)
	number, err := strconv.ParseUint(rec.call, 10, 31)
	c.Arch, c.Number = uint32(arch), int(number)
	return c, archErr == nil && err == nil
}
