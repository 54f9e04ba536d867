// SPDX-License-Identifier: Apache-2.0

package report

import (
	"maps"
	"slices"
	"strings"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
)

// node is a name in the tree of files.
type node struct {
	Name     string
	Granted  string // read-only or read-write, with what is below it; empty: not here
	From     string // base or approved
	Proposed string // the status of a proposal, where it is not in force
	Observed string // what was done here
	Programs []string
	Count    int // how often
	Children []*node
	Open     bool // shown unfolded

	below map[string]*node
}

// files is the tree of what is granted and of what was observed.
func (d *Data) files() (roots []*node, more int) {
	root := &node{below: map[string]*node{}}
	size := 0
	at := func(path string) *node {
		n := root
		for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
			child, ok := n.below[name]
			if !ok {
				if size >= maxFiles {
					more++
					return &node{}
				}
				size++
				child = &node{Name: describe.Plain(name), below: map[string]*node{}}
				n.below[name] = child
			}
			n = child
		}
		return n
	}
	grant := func(paths []string, access, from string) {
		for _, path := range paths {
			n := at(path)
			if n.Granted != "read-write" {
				n.Granted, n.From = access, from
			}
		}
	}
	if d.Base != nil && d.Base.Filesystem != nil {
		grant(d.Base.Filesystem.ReadOnly, "read-only", fromBase)
		grant(d.Base.Filesystem.ReadWrite, "read-write", fromBase)
	}
	if d.Learned != nil && d.Learned.Filesystem != nil {
		grant(d.Learned.Filesystem.ReadOnly, "read-only", learn.StatusApproved)
		grant(d.Learned.Filesystem.ReadWrite, "read-write", learn.StatusApproved)
	}
	for i := range d.Proposals {
		p := &d.Proposals[i]
		for j := range p.Evidence.Files {
			use := &p.Evidence.Files[j]
			n := at(use.Path)
			n.Observed, n.Count = observed(use), n.Count+use.Count
			for _, b := range use.Binaries {
				n.Programs = append(n.Programs, describe.Plain(b))
			}
		}
		if p.Filesystem != nil && p.Status != learn.StatusApproved {
			for _, path := range slices.Concat(p.Filesystem.ReadOnly, p.Filesystem.ReadWrite) {
				at(path).Proposed = describe.Plain(p.Status)
			}
		}
	}
	root.sort(0)
	return root.Children, more
}

// openDepth is how deep the tree is unfolded at first.
const openDepth = 2

func (n *node) sort(depth int) {
	n.Open = depth < openDepth
	for _, name := range slices.Sorted(maps.Keys(n.below)) {
		child := n.below[name]
		child.sort(depth + 1)
		n.Children = append(n.Children, child)
	}
}

// observed says what was done to a path.
func observed(use *learn.FileUse) string {
	if use.Write {
		return "written"
	}
	return "read"
}
