package e2e_test

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

// snapshot is all that a container could leave on the machine. It is only
// meaningful in tests that are not parallel: it has everybody's.
type snapshot map[string]bool

// snap takes stock of mounts, namespaces, processes and cgroups, and of the files
// below some directories.
func snap(t *testing.T, dirs ...string) snapshot {
	t.Helper()
	s := snapshot{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range linesOf(string(mounts)) {
		fields := strings.Fields(line)
		s["mount "+fields[0]+" "+fields[4]] = true // the id and the mount point
	}
	for _, link := range glob(t, "/proc/[0-9]*/ns/*") {
		if target, err := os.Readlink(link); err == nil {
			s["namespace "+target] = true
		}
	}
	for _, link := range glob(t, "/proc/[0-9]*/fd/*") {
		if target, err := os.Readlink(link); err == nil && slices.Contains([]string{"net", "mnt", "pid"}, strings.SplitN(target, ":", 2)[0]) {
			s["namespace "+target] = true
		}
	}
	for _, file := range glob(t, "/proc/[0-9]*/cmdline") {
		// A process that is only waited for has none.
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			s["process "+filepath.Base(filepath.Dir(file))+" "+strings.ReplaceAll(string(text), "\x00", " ")] = true
		}
	}
	for _, dir := range cgroups(t) {
		s["cgroup "+dir] = true
	}
	s.allow(files(dirs...)...)
	return s
}

// cgroups lists those of this run's containers, which the low-level runtime puts
// below its own (cgroup v1) or at the root.
func cgroups(t *testing.T) []string {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	var list []string
	for line := range linesOf(string(own)) {
		path := line[strings.LastIndexByte(line, ':')+1:]
		for _, parent := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			list = append(list, glob(t, filepath.Join(parent, path, binaries.tag+"-*"))...)
			list = append(list, glob(t, filepath.Join(parent, binaries.tag+"-*"))...)
		}
	}
	return list
}

// files lists what is below directories.
func files(dirs ...string) []string {
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

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	must(t, err)
	return list
}

// allow adds files: those that may stay are then no change.
func (s snapshot) allow(paths ...string) {
	for _, path := range paths {
		s["file "+path] = true
	}
}

// since lists what was added (+) and what has gone (-), other than by ending.
func (s snapshot) since(before snapshot) []string {
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

// nothingLeft fails unless everything becomes as it was before: processes that
// are not waited for need a moment.
func nothingLeft(t *testing.T, what string, before snapshot, dirs ...string) {
	t.Helper()
	var changes []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if changes = snap(t, dirs...).since(before); len(changes) == 0 {
			return
		}
	}
	t.Errorf("%s left:\n%s", what, strings.Join(changes, "\n"))
}

// places are the directories that a container must leave as they were, its own
// included.
func (w *world) places(containers ...*container) []string {
	places := map[string]bool{w.runDir: true, w.stateDir: true, w.policyDir: true, w.root: true}
	for _, c := range containers {
		places[c.bundle] = true
	}
	return slices.Collect(maps.Keys(places))
}
