// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"math/bits"
	"path"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/internal/abspath"
)

// FileOp is a set of things done to a file.
type FileOp uint16

// What Landlock has rights for. A right on a directory holds for all below it.
const (
	OpRead     FileOp = 1 << iota // the content of a file
	OpReadDir                     // a directory's entries
	OpWrite                       // the content of a file
	OpExecute                     // a program
	OpCreate                      // an entry in the directory that the path is in
	OpDelete                      // such an entry
	OpRename                      // such an entry, from or to the path
	OpTruncate                    // a file's content
)

var opNames = []string{"read", "list", "write", "execute", "create", "delete", "rename", "truncate"}

// String lists the operations, in a fixed order: "read,write".
func (o FileOp) String() string {
	var names []string
	for rest := uint16(o); rest != 0; rest &= rest - 1 {
		if i := bits.TrailingZeros16(rest); i < len(opNames) {
			names = append(names, opNames[i])
		}
	}
	return strings.Join(names, ",")
}

// MarshalText is String.
func (o FileOp) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText wrote; names that it does not know are left out.
func (o *FileOp) UnmarshalText(text []byte) error {
	*o = 0
	for name := range strings.SplitSeq(string(text), ",") {
		if i := slices.Index(opNames, name); i >= 0 {
			*o |= 1 << i
		}
	}
	return nil
}

const (
	opsEntry = OpCreate | OpDelete | OpRename // they change a directory
	opsWrite = OpWrite | OpTruncate | opsEntry
)

// FileAccess is what a program did, or tried to do, to a file.
type FileAccess struct {
	Time time.Time
	Path string // in the container: absolute, clean, and without symbolic links
	Op   FileOp
	// Existing is, for what the workload made, or removes, the nearest directory above it that was there
	// when the container started. Where it is empty, that is the one it is in for an entry
	// that is created, deleted or renamed, and anything else was there itself.
	Existing string

	Binary, SHA256 string
	Ancestors      []string // executables of the parents, nearest first
	Permissive     bool     // it succeeded although the policy does not allow it
	Reason         string
}

// FileRules are the paths that a policy grants, with all that is added to every policy. They are
// clean and without symbolic links; a directory stands for its subtree.
type FileRules struct {
	ReadOnly, ReadWrite []string
}

// Allows reports whether the rules allow an access.
func (r *FileRules) Allows(a FileAccess) bool {
	what := path.Clean(a.Path)
	if a.Op&opsEntry != 0 {
		what = path.Dir(what)
	}
	below := func(dir string) bool { return within(dir, what) }
	if slices.ContainsFunc(r.ReadWrite, below) {
		return true
	}
	return a.Op&opsWrite == 0 && slices.ContainsFunc(r.ReadOnly, below)
}

// within reports whether p is dir or below it.
func within(dir, p string) bool { return abspath.Within(p, dir) }
