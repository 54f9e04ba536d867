// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// snapshot is all that a container could leave on a machine.
type snapshot map[string]bool

// snap takes stock of a node's mounts, namespaces, processes, cgroups, network
// devices and rules, and of the files of running containers.
func (n *node) snap(t *testing.T) snapshot {
	t.Helper()
	s := snapshot{}
	mounts, err := os.ReadFile(n.Path("proc/1/mountinfo"))
	must(t, err)
	for line := range linesOf(string(mounts)) {
		s["mount "+strings.Fields(line)[4]] = true
	}
	for _, kind := range []string{"ns", "fd"} {
		for _, link := range glob(t, n.Path("proc/[0-9]*", kind, "*")) {
			target, err := os.Readlink(link)
			if err == nil && slices.Contains([]string{"net", "mnt", "pid", "ipc", "uts"}, strings.SplitN(target, ":", 2)[0]) {
				s["namespace "+target] = true
			}
		}
	}
	for _, file := range glob(t, n.Path("proc/[0-9]*/cmdline")) {
		// A process that is only waited for has none.
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			line := strings.ReplaceAll(string(text), "\x00", " ")
			if !strings.HasPrefix(line, "containerd --config ") { // a test may have started it anew
				line = filepath.Base(filepath.Dir(file)) + " " + line
			}
			s["process "+line] = true
		}
	}
	for _, group := range glob(t, "/sys/fs/cgroup/*/"+n.namespace+"*/*") {
		if info, err := os.Stat(group); err == nil && info.IsDir() {
			s["cgroup "+group] = true
		}
	}
	for _, device := range n.devices(t) {
		s["device "+device] = true
	}
	for _, table := range n.tables(t) {
		s["rules "+table] = true
	}
	for _, dir := range []string{n.runDir, filepath.Join(n.dir, "state"), filepath.Join(n.dir, "ipam"), n.Path("run"), n.Path("var/lib/cni")} {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			// What a root file system holds is its mount's, and pipes that a
			// detached ctr made are its own to leave.
			if err == nil && e.IsDir() && (e.Name() == "rootfs" || e.Name() == "fifo") {
				return fs.SkipDir
			}
			if err == nil && !e.IsDir() {
				s["file "+path] = true
			}
			return nil
		})
	}
	return s
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	must(t, err)
	return list
}

// stays are files that the engines and plugins keep for good: locks, host-local's
// last address, and the mark that a daemon of containerd 2 started.
func stays(item string) bool {
	return strings.HasPrefix(item, "file ") &&
		slices.Contains([]string{"lock", "last_reserved_ip.0", "last_reserved_ip.1"}, filepath.Base(item))
}

// nothingLeft fails unless all becomes as it was before: processes that are not
// waited for need a moment.
func (n *node) nothingLeft(t *testing.T, before snapshot) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		left = nil
		for item := range n.snap(t) {
			if !before[item] && !stays(item) {
				left = append(left, item)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	slices.Sort(left)
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}
