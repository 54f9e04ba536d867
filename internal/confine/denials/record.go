// SPDX-License-Identifier: Apache-2.0

// Package denials owns what the kernel says of what it refused a workload: the records
// of its audit log of Landlock (6.15 and later) and of seccomp (4.14 and later), read
// while they pass.
//
// Those of Landlock exist only where the node has auditing on, which is a choice for the
// whole node that this package never makes. It does not decide what a denial needs
// of a policy (package learn).
package denials

import (
	"encoding/hex"
	"strconv"
	"strings"

	"openshell.ai/openshell/internal/confine/observe"
)

// Types of audit records (linux/audit.h).
const (
	typeSyscall = 1300
	typeAccess  = 1423 // AUDIT_LANDLOCK_ACCESS
	typeDomain  = 1424 // AUDIT_LANDLOCK_DOMAIN
)

// record is what is read of one audit record.
type record struct {
	event  string // what records of one event share: time and serial number
	domain string
	pid    int
	exe    string

	// Of an access.
	path     string
	blockers []string

	// Of a system call.
	arch, call string
	signal     int
}

// parse reads a record's text. It returns false where the text is no record.
func parse(text string) (r record, ok bool) {
	text = strings.TrimRight(text, "\x00\n")
	head, rest, ok := strings.Cut(text, "): ")
	if !ok || !strings.HasPrefix(head, "audit(") {
		return record{}, false
	}
	r.event = strings.TrimPrefix(head, "audit(")
	for rest != "" {
		var key, value string
		if key, value, rest, ok = field(rest); !ok {
			break
		}
		switch key {
		case "domain":
			r.domain = value
		case "pid":
			r.pid, _ = strconv.Atoi(value)
		case "exe":
			r.exe = value
		case "path":
			r.path = value
		case "arch":
			r.arch = value
		case "syscall":
			r.call = value
		case "sig":
			r.signal, _ = strconv.Atoi(value)
		case "blockers":
			r.blockers = strings.Split(value, ",")
		}
	}
	return r, true
}

// field splits the first key and value off. The kernel puts strings that a process
// chose in quotes, or writes them in hexadecimal where they hold quotes, spaces or
// control characters (audit_log_untrustedstring).
func field(text string) (key, value, rest string, ok bool) {
	text = strings.TrimLeft(text, " ")
	key, text, ok = strings.Cut(text, "=")
	if !ok {
		return "", "", "", false
	}
	if quoted, is := strings.CutPrefix(text, `"`); is {
		value, rest, ok = strings.Cut(quoted, `"`)
		return key, value, rest, ok
	}
	value, rest, _ = strings.Cut(text, " ")
	if key == "path" || key == "exe" {
		if b, err := hex.DecodeString(value); err == nil {
			value = string(b)
		}
	}
	return key, value, rest, true
}

// kinds are the rights that Landlock names as missing
// (Documentation/admin-guide/LSM/landlock.rst), and what was tried.
var kinds = map[string]observe.Kind{
	"fs.execute": observe.Execute, "fs.write_file": observe.Write, "fs.read_file": observe.Read,
	"fs.read_dir": observe.ReadDir, "fs.truncate": observe.Write, "fs.ioctl_dev": observe.Write,
	"fs.remove_dir": observe.Delete, "fs.remove_file": observe.Delete,
	"fs.make_char": observe.Create, "fs.make_dir": observe.Create, "fs.make_reg": observe.Create,
	"fs.make_sock": observe.Create, "fs.make_fifo": observe.Create, "fs.make_block": observe.Create,
	"fs.make_sym": observe.Create, "fs.refer": observe.Rename,
}

// Denial is an access that Landlock refused.
type Denial struct {
	// Path is as the process knew it. Where something was to be created, deleted
	// or renamed, it is the directory: the name is not told.
	Path   string
	Kinds  observe.Kind
	PID    int    // as seen from outside, 0 where it is not told
	Binary string // of that process
}

// access returns what a record of an access says, and false where it is of none
// that a filesystem rule could allow.
func (r *record) access() (d Denial, ok bool) {
	for _, b := range r.blockers {
		d.Kinds |= kinds[b]
	}
	d.Path = r.path
	return d, d.Kinds != 0 && strings.HasPrefix(d.Path, "/")
}
