// SPDX-License-Identifier: Apache-2.0

package node

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Snapshot is all that a container could leave on the machine. It is only
// meaningful in tests that are not parallel: it has everybody's.
type Snapshot map[string]bool

// Snap takes stock of mounts, namespaces, processes and cgroups, and of the files
// below some directories.
func Snap(t *testing.T, dirs ...string) Snapshot {
	t.Helper()
	s := Snapshot{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	Must(t, err)
	for line := range Lines(string(mounts)) {
		fields := strings.Fields(line)
		s["mount "+fields[0]+" "+fields[4]] = true // the id and the mount point
	}
	for _, link := range Glob(t, "/proc/[0-9]*/ns/*") {
		if target, err := os.Readlink(link); err == nil {
			s["namespace "+target] = true
		}
	}
	for _, link := range Glob(t, "/proc/[0-9]*/fd/*") {
		if target, err := os.Readlink(link); err == nil && slices.Contains([]string{"net", "mnt", "pid"}, strings.SplitN(target, ":", 2)[0]) {
			s["namespace "+target] = true
		}
	}
	for _, file := range Glob(t, "/proc/[0-9]*/cmdline") {
		// A process that is only waited for has none.
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			s["process "+filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(text), "\x00", " ")] = true
		}
	}
	for _, dir := range cgroups(t) {
		s["cgroup "+dir] = true
	}
	s.Allow(Files(dirs...)...)
	return s
}

// cgroups lists those of this run's containers, which the low-level runtime puts
// below its own (cgroup v1) or at the root.
func cgroups(t *testing.T) []string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	Must(t, err)
	var list []string
	for line := range Lines(string(own)) {
		path := line[strings.LastIndexByte(line, ':')+1:]
		for _, parent := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			for _, name := range []string{binaries.tag + "-*", "openshell-" + binaries.tag + "-*"} { // its supervisor's
				list = append(list, Glob(t, filepath.Join(parent, path, name))...)
				list = append(list, Glob(t, filepath.Join(parent, name))...)
			}
		}
	}
	return list
}

// Files lists what is below directories.
func Files(dirs ...string) []string {
	var list []string
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil { // what goes away meanwhile is not there
				list = append(list, path)
			}
			return nil
		})
	}
	return list
}

func Glob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	Must(t, err)
	return list
}

// Allow adds files: those that may stay are then no change.
func (s Snapshot) Allow(paths ...string) {
	for _, path := range paths {
		s["file "+path] = true
	}
}

// Since lists what was added (+) and what has gone (-), other than by ending.
func (s Snapshot) Since(before Snapshot) []string {
	var out []string
	for item := range s {
		if !before[item] {
			out = append(out, "+"+item)
		}
	}
	for item := range before {
		ends := strings.HasPrefix(item, "process ") || strings.HasPrefix(item, "namespace ")
		if !s[item] && !ends {
			out = append(out, "-"+item)
		}
	}
	slices.Sort(out)
	return out
}

// NothingLeft fails unless everything becomes as it was before: processes that
// are not waited for need a moment.
func NothingLeft(t *testing.T, what string, before Snapshot, dirs ...string) {
	t.Helper()
	var changes []string
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if changes = Snap(t, dirs...).Since(before); len(changes) == 0 {
			return
		}
	}
	t.Errorf("%s left:\n%s", what, strings.Join(changes, "\n"))
}

// Places are the directories that a container must leave as they were, its own
// included.
func (w *World) Places(containers ...*Container) []string {
	places := map[string]bool{w.RunDir: true, w.StateDir: true, w.policyDir: true, w.Root: true}
	for _, c := range containers {
		places[c.Bundle] = true
	}
	return slices.Collect(maps.Keys(places))
}
