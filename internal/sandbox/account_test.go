// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestBesideCgroup(t *testing.T) {
	for container, want := range map[string]string{
		"":                            "x",
		"c1":                          "x",
		"a/c1":                        "a/x",
		"/c1":                         "/x",
		"/default/c1":                 "/default/x",
		"/kubepods/besteffort/pod1/c": "/kubepods/besteffort/pod1/x",
		"../../c1":                    "x",
		"/../../a/c1":                 "/a/x",
		"user-1.slice:libpod:c1":      "/user.slice/user-1.slice/x",
		":docker:c1":                  "/system.slice/x",
	} {
		if got, err := besideCgroup(container, "x"); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", container, got, err, want)
		}
	}
	if got, err := besideCgroup("no-slice:a:b", "x"); err == nil {
		t.Errorf("got %q", got)
	}
}

// A supervisor is in a cgroup of its own, with a bound, and the kernel ends
// others first; the cgroup goes with it, however it ends.
func TestAccount(t *testing.T) {
	for name, end := range map[string]func(*testing.T, Info, func()){
		"closed": func(_ *testing.T, _ Info, closeIt func()) { closeIt() },
		"killed": func(t *testing.T, info Info, closeIt func()) {
			if err := unix.Kill(info.Supervisor.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			reap(t, info.Supervisor.PID)
			closeIt()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newNode(t)
			root := t.TempDir()
			if _, err := Open(t.Context(), c, request(root, "c1"), spawn); err != nil {
				t.Fatal(err)
			}
			var info Info
			limit := ""
			eventually(t, "the cgroup", func() bool {
				info = only(t, c)
				for _, path := range info.Cgroups {
					for _, file := range []string{"memory.max", "memory.limit_in_bytes"} {
						if data, err := os.ReadFile(filepath.Join(path, file)); err == nil {
							limit = strings.TrimSpace(string(data))
						}
					}
				}
				if len(info.Cgroups) == 0 {
					if log, err := os.ReadFile(filepath.Join(c.StateDir, "sandboxes", info.ID, LogFile)); err == nil && strings.Contains(string(log), "no cgroup of its own") {
						t.Skipf("this machine lets nobody make a cgroup: %s", log)
					}
				}
				return limit == strconv.Itoa(320<<20)
			})
			for _, path := range info.Cgroups {
				data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
				if err != nil || !slices.Contains(strings.Fields(string(data)), strconv.Itoa(info.Supervisor.PID)) {
					t.Errorf("%s: %q, %v", path, data, err)
				}
			}
			if data, err := os.ReadFile("/proc/" + strconv.Itoa(info.Supervisor.PID) + "/oom_score_adj"); err != nil || strings.TrimSpace(string(data)) != strconv.Itoa(oomScore) {
				// Without CAP_SYS_RESOURCE nobody can have it; then the log says so.
				log, lerr := os.ReadFile(filepath.Join(c.StateDir, "sandboxes", info.ID, LogFile))
				if lerr != nil || !strings.Contains(string(log), "a lack of memory may end the supervisor") {
					t.Errorf("oom_score_adj: %q, %v; log: %s, %v", data, err, log, lerr)
				}
			}
			end(t, info, func() { closeContainer(t, c, root, "c1") })
			for _, path := range info.Cgroups {
				eventually(t, path+" goes", missing(path))
			}
			if name == "closed" {
				reap(t, info.Supervisor.PID)
			}
		})
	}
}
