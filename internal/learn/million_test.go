// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/policy"
)

// flood returns how many different things a hostile workload does: some more than there
// is room for, or as many as LEARN_FLOOD says. For a million (make test-million) it takes minutes.
func flood(some int) int {
	if n, err := strconv.Atoi(os.Getenv("LEARN_FLOOD")); err == nil {
		return n
	}
	if raced() {
		some /= 3
	}
	return some
}

// raced reports whether the race detector is at work, which makes a flood take minutes.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

const (
	// mostHeap is what a learner, or a gatherer, may take of the heap at any time: what waits, what is
	// being written, and the one proposal that it is merged into.
	mostHeap = 256 << 20
	// mostFiles are all proposals, the record of the run and the lock.
	mostFiles = maxProposals + 2
	// mostDisk is the bound of the proposals, and what the last one was over.
	mostDisk = maxProposalBytes + state.MaxFileSize
)

// long makes a path that is nearly as long as one can be.
var long = strings.Repeat("/"+strings.Repeat("word", 25), 38)

// millions are what a hostile workload does without an end, each time something else.
var millions = []struct {
	what string
	act  func(network func(Denial), file func(FileAccess), i int)
	// lost is where there are no more proposals to be had, so that the run has the mark; elsewhere every
	// proposal has it.
	lost bool
	// part of them is enough, where each takes long.
	part int
}{
	{what: "hosts", lost: true, act: func(network func(Denial), _ func(FileAccess), i int) {
		network(with(connect(), func(d *Denial) { d.Host = name(i) + ".example" }))
	}},
	{what: "programs", lost: true, part: 5, act: func(network func(Denial), _ func(FileAccess), i int) {
		network(with(connect(), func(d *Denial) { d.Binary = "/usr/bin/" + name(i) }))
	}},
	{what: "paths", act: func(network func(Denial), _ func(FileAccess), i int) {
		network(request1("GET", fmt.Sprintf("/api/%s/%s", name(i%3000), name(i))))
	}},
	{what: "first segments", part: 5, act: func(network func(Denial), _ func(FileAccess), i int) {
		network(request1("GET", "/"+name(i)))
	}},
	{what: "long paths", part: 5, act: func(network func(Denial), _ func(FileAccess), i int) {
		network(request1("GET", "/api/"+name(i)+long))
	}},
	{what: "files", act: func(_ func(Denial), file func(FileAccess), i int) {
		file(access(OpRead, "/data/"+name(i%1000)+"/"+name(i)))
	}},
	{what: "files in a guarded directory", part: 5, act: func(_ func(Denial), file func(FileAccess), i int) {
		file(access(OpCreate, "/etc/"+name(i)))
	}},
	{what: "trees", lost: true, part: 5, act: func(_ func(Denial), file func(FileAccess), i int) {
		file(access(OpRead, "/"+name(i)+"/x"))
	}},
}

// heap is what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A million different hosts, programs, paths or files fit in bounded memory and files, whatever of it goes on
// while it is written, and it shows: no proposal that was cut short, and no run that lost something, is
// approved unseen.
func TestMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range millions {
		t.Run(c.what, func(t *testing.T) {
			n := flood(100_000) / max(c.part, 1)
			store, dir := storeInMemory(t)
			before := heap()
			l := start1(t, store, permissiveRun("r1"), Options{})
			most := int64(0)
			for i := range n {
				c.act(l.Observe, l.ObserveFile, i)
				if i%(n/10) == n/20 {
					most = max(most, heap()-before)
				}
			}
			most = max(most, heap()-before)
			closeLearner(t, l)
			files, bytes := onDisk(t, dir)
			t.Logf("%d MiB of heap, %d files, %d KiB", most>>20, files, bytes>>10)
			if most > mostHeap || files > mostFiles || bytes > mostDisk {
				t.Errorf("%d MiB of heap, %d files with %d MiB", most>>20, files, bytes>>20)
			}
			r := readRun(t, store, "r1")
			if c.lost != (r.Lost > 0) || r.Denials != n {
				t.Errorf("%d of %d denials are lost", r.Lost, r.Denials)
			}
			if all, err := List(store, "agent"); err != nil {
				t.Error(err)
			} else {
				checkMarks(t, all, c.lost)
			}
		})
	}
}

// The same for what a log tells.
func TestMillionGathered(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, c := range millions {
		t.Run(c.what, func(t *testing.T) {
			n := flood(100_000) / max(c.part, 1)
			before := heap()
			g := NewGatherer("agent")
			most := int64(0)
			for i := range n {
				c.act(func(d Denial) { g.Observe(permissiveRun("r1"), d) }, func(a FileAccess) { g.ObserveFile(permissiveRun("r1"), a) }, i)
				if i%(n/10) == n/20 {
					most = max(most, heap()-before)
				}
			}
			all := g.Proposals()
			most = max(most, heap()-before)
			if t.Logf("%d MiB of heap", most>>20); most > mostHeap {
				t.Errorf("%d MiB of heap", most>>20)
			}
			if c.lost != (g.Lost() > 0) {
				t.Errorf("%d denials are lost", g.Lost())
			}
			checkMarks(t, all, c.lost)
		})
	}
}

// checkMarks checks that there is no proposal that hides how much it allows.
func checkMarks(t *testing.T, all []Proposal, lost bool) {
	t.Helper()
	if len(all) == 0 || len(all) > maxProposals {
		t.Errorf("%d proposals", len(all))
	}
	for i := range all {
		p := &all[i]
		if !p.CutShort() && !p.Flags.Sensitive && !lost { // neither is approved without a look
			t.Errorf("%s is not marked: %q", p.RuleName, p.SecurityNotes)
		}
		for _, grant := range Grants(orEmpty(p.Rule)) {
			if grant == "GET /**" || grant == "GET **" {
				t.Errorf("%s allows %s", p.RuleName, grant)
			}
		}
	}
}

// Many paths of each of many hosts are more than there is room for, though none of them is much by itself.
func TestMillionOfManyHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	n := flood(60_000)
	before := heap()
	g := NewGatherer("agent")
	for i := range n {
		d := with(request1("GET", fmt.Sprintf("/%s%s", name(i/1000), long)), func(d *Denial) { d.Host = name(i%1000) + ".example" })
		g.Observe(permissiveRun("r1"), d)
	}
	if most := heap() - before; most > mostHeap {
		t.Errorf("%d MiB of heap", most>>20)
	}
	cut := 0
	for _, e := range g.evidence {
		if e.truncated {
			cut++
		}
	}
	if cut == 0 || g.Lost() > 0 {
		t.Errorf("%d of %d proposals are cut short, %d denials lost", cut, len(g.evidence), g.Lost())
	}
}

func onDisk(t *testing.T, dir string) (files int, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += info.Size()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files, bytes
}

func orEmpty(r *policy.Rule) *policy.Rule {
	if r == nil {
		return &policy.Rule{}
	}
	return r
}
