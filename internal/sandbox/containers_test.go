// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestFollowsTheFirstProcess(t *testing.T) {
	noLeak(t)
	for _, kind := range []string{"runc", "crun"} {
		t.Run(kind, func(t *testing.T) {
			c := newNode(t)
			root := t.TempDir()
			s := start(t, c, request(root, "c1"))
			init := newProcess(t)
			writeState(t, kind, root, "c1", init.Process.Pid) // only now is it made
			eventually(t, "the pid is known", func() bool {
				info, err := Find(c.RunDir, "c1")
				return err == nil && info.Containers[0].PID == init.Process.Pid
			})
			end(init)
			eventually(t, "the sandbox ends", hasEnded(s))
		})
	}
}

func TestCreatorThatFails(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	creator := newProcess(t)
	r := request(t.TempDir(), "c1")
	dir := t.TempDir()
	r.Creator = creator.Process.Pid
	makeMountPoints(t, c, &r, dir, "/etc/openshell-tls")
	s := start(t, c, r)
	if hasEnded(s)() {
		t.Fatal("it ended before its creator")
	}
	end(creator)
	eventually(t, "the sandbox ends", hasEnded(s))
	if !missing(filepath.Join(dir, "etc"))() || !missing(claimsDir(c.RunDir)+"/"+filepath.Dir(r.Container.Claim))() {
		t.Error("the mount points are left")
	}
}

// A container of the same id whose state is left by a process that is gone, and
// whose number another has now, does not run.
func TestInitIsThatProcess(t *testing.T) {
	root := t.TempDir()
	init := newProcess(t)
	for _, kind := range []string{"runc", "crun"} {
		writeState(t, kind, root, kind, init.Process.Pid)
		container := Container{ID: kind, Root: root}
		if pid, err := container.init(); err != nil || pid != init.Process.Pid {
			t.Errorf("%s: %d, %v", kind, pid, err)
		}
	}
	for name, text := range map[string]string{
		"reused": `{"init_process_pid":` + strconv.Itoa(init.Process.Pid) + `,"init_process_start":1}`,
		"empty":  `{}`, "garbage": `{`, "zero": `{"init_process_pid":0}`,
	} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name, "state.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		container := Container{ID: name, Root: root}
		if pid, err := container.init(); err == nil {
			t.Errorf("%s: %d", name, pid)
		}
		if err := container.kill(); err != nil {
			t.Errorf("%s: kill: %v", name, err)
		}
	}
	container := Container{ID: "runc", Root: root}
	if err := container.kill(); err != nil {
		t.Fatal(err)
	}
	_ = init.Wait()
	if container.running() {
		t.Error("an ended process runs")
	}
}

// A zombie has ended: its parent may never wait for it.
func TestZombieHasEnded(t *testing.T) {
	root := t.TempDir()
	init := newProcess(t)
	writeState(t, "runc", root, "c1", init.Process.Pid)
	p, err := openProcess(init.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if p.ended(time.Millisecond) {
		t.Error("a running process has ended")
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if !p.ended(5 * time.Second) {
		t.Error("a killed process has not ended")
	}
	eventually(t, "the container does not run", func() bool { return !(Container{ID: "c1", Root: root}).running() })
	_ = init.Wait()
	if err := p.kill(); err != nil {
		t.Errorf("kill again: %v", err)
	}
}

func TestMembersComeAndGo(t *testing.T) {
	noLeak(t)
	c := newNode(t)
	root := t.TempDir()
	s := start(t, c, request(root, "c1"))
	if _, err := s.join(joinRequest{Container: Container{ID: "c2", Root: root}, Creator: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	s.Detach(root, "unknown")
	s.Detach(t.TempDir(), "c2") // of another runtime
	names := func() (out []string) {
		info, err := Find(c.RunDir, s.request.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range info.Containers {
			out = append(out, c.ID)
		}
		return out
	}
	if got := names(); len(got) != 2 {
		t.Fatalf("got %q", got)
	}

	// The container is made anew while the watch over the old one is still on:
	// its end must not take the new one out.
	old := newProcess(t)
	writeState(t, "runc", root, "c2", old.Process.Pid)
	eventually(t, "the pid is known", func() bool {
		info, err := Find(c.RunDir, s.request.ID)
		return err == nil && len(info.Containers) == 2 && info.Containers[1].PID == old.Process.Pid
	})
	closeContainer(t, c, root, "c2")
	writeState(t, "runc", root, "c2", newProcess(t).Process.Pid)
	if _, err := s.join(joinRequest{Container: Container{ID: "c2", Root: root}, Creator: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	// Another container that ends later is taken out.
	other := newProcess(t)
	writeState(t, "runc", root, "c3", other.Process.Pid)
	if _, err := s.join(joinRequest{Container: Container{ID: "c3", Root: root}, Creator: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its pid is known", func() bool {
		info, err := Find(c.RunDir, s.request.ID)
		return err == nil && len(info.Containers) == 3 && info.Containers[2].PID == other.Process.Pid
	})
	end(old)
	end(other)
	eventually(t, "the third container is gone", func() bool { return !slices.Contains(names(), "c3") })
	if got := names(); len(got) != 2 {
		t.Errorf("the new container is gone: %q", got)
	}
	closeContainer(t, c, root, "c1")
	if got := names(); len(got) != 1 || got[0] != "c2" {
		t.Errorf("got %q", got)
	}
	closeContainer(t, c, root, "c2")
	if !missing(s.dir)() {
		t.Error("the last container's close returned before the sandbox's end")
	}
	closeContainer(t, c, root, "c2") // once more
}
