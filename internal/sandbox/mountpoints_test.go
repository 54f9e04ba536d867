// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/rootfs"
)

// makeMountPoints makes them for a request's container, whose root file system is
// a directory.
func makeMountPoints(t *testing.T, c *config.Config, r *Request, dir string, paths ...string) {
	t.Helper()
	r.Container.Rootfs = rootfs.At(dir)
	root, err := r.Container.Rootfs.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := r.Container.MakeMountPoints(c.RunDir, root, r.Creator, paths); err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if missing(filepath.Join(dir, p))() {
			t.Fatalf("%s was not made", p)
		}
	}
}

func noClaims(t *testing.T, c *config.Config) {
	t.Helper()
	if !missing(claimsDir(c.RunDir))() {
		t.Error("claims are left")
	}
}

// The workload puts something else in the place of what was made.
func TestOnlyWhatWasMadeIsRemoved(t *testing.T) {
	const made = "/work/x/sshd"
	for name, change := range map[string]func(t *testing.T, root, canary string){
		"a link above": func(t *testing.T, root, canary string) {
			check(t, os.Rename(root+"/work/x", root+"/work/y"), os.Symlink(canary, root+"/work/x"))
		},
		"a relative link above": func(t *testing.T, root, canary string) {
			up, err := filepath.Rel(root+"/work", canary)
			check(t, err, os.Rename(root+"/work/x", root+"/work/y"), os.Symlink(up, root+"/work/x"))
		},
		"a link": func(t *testing.T, root, canary string) {
			check(t, os.Remove(root+made), os.Symlink(canary+"/sshd", root+made))
		},
		"another directory": func(t *testing.T, root, _ string) {
			// Not removed first, for its inode would be given again.
			check(t, os.Rename(root+made, root+"/work/x/old"), os.Mkdir(root+made, 0o755))
		},
		"a file": func(t *testing.T, root, _ string) {
			check(t, os.Remove(root+made), os.WriteFile(root+made, nil, 0o644))
		},
		"a full one":  func(t *testing.T, root, _ string) { check(t, os.WriteFile(root+made+"/f", nil, 0o644)) },
		"a root away": func(t *testing.T, root, _ string) { check(t, os.Rename(root, root+".old"), os.Mkdir(root, 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newNode(t)
			dir := t.TempDir()
			root, canary := filepath.Join(dir, "rootfs"), filepath.Join(dir, "canary")
			check(t, os.Mkdir(root, 0o755), os.MkdirAll(canary+"/sshd", 0o755))
			r := request(t.TempDir(), "c1")
			makeMountPoints(t, c, &r, root, made)
			change(t, root, canary)
			if err := r.Container.RemoveMountPoints(c.RunDir); err != nil {
				t.Error(err)
			}
			if missing(canary + "/sshd")() {
				t.Error("a directory of the host's is gone")
			}
			if name == "another directory" && missing(root+made)() {
				t.Error("the workload's own is gone")
			}
			noClaims(t, c)
		})
	}
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// What two containers use is there until the second has gone, whichever made it.
func TestSharedMountPoints(t *testing.T) {
	for _, first := range []int{0, 1} {
		c := newNode(t)
		dir := t.TempDir()
		var both [2]Request
		for i, id := range []string{"c1", "c2"} {
			both[i] = request(t.TempDir(), id)
			makeMountPoints(t, c, &both[i], dir, "/etc/openshell-tls", "/dev/.openshell")
		}
		check(t, both[first].Container.RemoveMountPoints(c.RunDir))
		if missing(dir+"/etc/openshell-tls")() || missing(dir+"/dev/.openshell")() {
			t.Errorf("container %d has gone, and with it the mount points of the other", first)
		}
		check(t, both[1-first].Container.RemoveMountPoints(c.RunDir), both[0].Container.RemoveMountPoints(c.RunDir))
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left are %v, %v", left, err)
		}
		noClaims(t, c)
	}
}

// Containers come and go at the same time, of one root file system and of several.
func TestMountPointsAtOnce(t *testing.T) {
	c := newNode(t)
	dirs := []string{t.TempDir(), t.TempDir()}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				r := request("/root", strconv.Itoa(i))
				r.Container.Rootfs = rootfs.At(dirs[i%2])
				root, err := r.Container.Rootfs.Open()
				if err == nil {
					err = r.Container.MakeMountPoints(c.RunDir, root, r.Creator, []string{"/etc/openshell-tls"})
					root.Close()
				}
				if err != nil || missing(dirs[i%2]+"/etc/openshell-tls")() {
					t.Errorf("container %d has no mount point: %v", i, err)
				}
				if err := errors.Join(r.Container.RemoveMountPoints(c.RunDir), Sweep(c.RunDir)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, dir := range dirs {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left are %v, %v", left, err)
		}
	}
	noClaims(t, c)
}

// What an image has itself is not what was made.
func TestMountPointsOfTheImage(t *testing.T) {
	c := newNode(t)
	dir := t.TempDir()
	check(t, os.MkdirAll(dir+"/etc/openshell-tls", 0o755))
	r := request(t.TempDir(), "c1")
	makeMountPoints(t, c, &r, dir, "/etc/openshell-tls")
	check(t, r.Container.RemoveMountPoints(c.RunDir))
	if missing(dir+"/etc/openshell-tls")() || r.Container.Claim != "" {
		t.Errorf("claim %q", r.Container.Claim)
	}
	noClaims(t, c)
}

// Creators are killed at any moment; a claim that cannot be read may be anybody's.
func TestSweepMountPoints(t *testing.T) {
	c := newNode(t)
	dir := t.TempDir()
	creator, root := newProcess(t), t.TempDir()
	r := request(root, "c1")
	r.Creator = creator.Process.Pid
	makeMountPoints(t, c, &r, dir, "/etc/openshell-tls")
	point := dir + "/etc/openshell-tls"
	check(t, Sweep(c.RunDir))
	if missing(point)() {
		t.Fatal("its creator runs")
	}
	end(creator)
	init := newProcess(t)
	writeState(t, "runc", root, "c1", init.Process.Pid)
	check(t, Sweep(c.RunDir))
	if missing(point)() {
		t.Fatal("its container runs")
	}
	end(init)
	garbage := filepath.Join(claimsDir(c.RunDir), filepath.Dir(r.Container.Claim), "garbage")
	check(t, os.WriteFile(garbage, []byte("{"), 0o600), Sweep(c.RunDir))
	if missing(point)() {
		t.Error("somebody has a claim that cannot be read")
	}
	check(t, os.Remove(garbage))
	r.Creator = os.Getpid()
	makeMountPoints(t, c, &r, dir, "/etc/other")
	check(t, r.Container.RemoveMountPoints(c.RunDir))
	if !missing(dir + "/etc/other")() {
		t.Error("what is nobody else's is left")
	}
}

func TestMountPointsFail(t *testing.T) {
	c := newNode(t)
	dir := t.TempDir()
	check(t, os.WriteFile(dir+"/file", nil, 0o644), os.Symlink("/", dir+"/link"), unix.Mkfifo(dir+"/fifo", 0o644))
	r := request(t.TempDir(), "c1")
	r.Container.Rootfs = rootfs.At(dir)
	root, err := r.Container.Rootfs.Open()
	check(t, err)
	defer root.Close()
	for _, p := range []string{"/file/x", "/link/x", "/fifo", "/fifo/x"} {
		if err := r.Container.MakeMountPoints(c.RunDir, root, r.Creator, []string{"/a/b", p}); err == nil {
			t.Errorf("%s was made", p)
		}
		if !missing(dir + "/a")() {
			t.Errorf("%s: something is left", p)
		}
	}
	noClaims(t, c)
}

// What a killed writer left does not keep the directories of others.
func TestClaimThatWasBeingWritten(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	r := request(t.TempDir(), "c1")
	makeMountPoints(t, c, &r, root, "/made")
	dir := filepath.Join(claimsDir(c.RunDir), filepath.Dir(r.Container.Claim))
	check(t, os.WriteFile(filepath.Join(dir, ".tmp-x-1"), []byte(`{"id":`), 0o600))
	if err := r.Container.RemoveMountPoints(c.RunDir); err != nil {
		t.Fatal(err)
	}
	if !missing(root + "/made")() {
		t.Error("the directory is left")
	}
	noClaims(t, c)
}
