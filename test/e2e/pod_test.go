// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// byLink allows what a link leads to.
const byLink = `version: 1
network_policies:
  tool:
    binaries: [{path: /usr/local/bin/tool}]
    endpoints: [{host: web.example, port: 80}]
`

// put writes a file of a container's root file system.
func put(c *node.Container, name, text string) {
	c.World.T.Helper()
	path := filepath.Join(c.Rootfs(), name)
	node.Must(c.World.T, os.MkdirAll(filepath.Dir(path), 0o755))
	node.Must(c.World.T, os.WriteFile(path, []byte(text), 0o644))
}

func link(c *node.Container, name, target string) {
	c.World.T.Helper()
	path := filepath.Join(c.Rootfs(), name)
	node.Must(c.World.T, os.MkdirAll(filepath.Dir(path), 0o755))
	node.Must(c.World.T, os.Symlink(target, path))
}

// Each container of a pod has its own links: a rule means the program that its link
// leads to there, and no other container's program of that path.
func TestLinksInAPod(t *testing.T) {
	cases.Show(t, "clients/pods")
	t.Parallel()
	w := node.New(t).Apart()
	w.Policy("pod", byLink)
	pause := w.Container(node.NetnsPath(w.Net), node.Policy("pod")).Start()
	linked, other, file := w.Container(node.NetnsPath(w.Net)), w.Container(node.NetnsPath(w.Net)), w.Container(node.NetnsPath(w.Net))
	link(linked, "usr/local/bin/tool", node.ClientPath)
	link(other, "usr/local/bin/tool", "other")
	node.Must(t, node.CopyFile(filepath.Join(other.Rootfs(), node.ClientPath), filepath.Join(other.Rootfs(), "usr/local/bin/other")))
	node.Must(t, os.MkdirAll(filepath.Join(file.Rootfs(), "usr/local/bin"), 0o755))
	node.Must(t, node.CopyFile(filepath.Join(file.Rootfs(), node.ClientPath), filepath.Join(file.Rootfs(), "usr/local/bin/tool")))
	for _, c := range []*node.Container{linked, other, file} {
		c.Start()
	}
	get := func(c *node.Container, program string) node.Result {
		return c.Exec(program, "get", "http://"+fakenet.WebHost+"/"+c.ID).Results(c)[0]
	}
	for _, tt := range []struct {
		name    string
		c       *node.Container
		program string
		allowed bool
	}{
		{"the link", linked, "/usr/local/bin/tool", true},
		{"what it leads to", linked, node.ClientPath, true},
		{"another container's link", other, "/usr/local/bin/tool", true},
		{"what that leads to", other, "/usr/local/bin/other", true},
		{"the first one's target elsewhere", other, node.ClientPath, false},
		{"a container without the link", pause, node.ClientPath, false},
		{"a file of that name", file, "/usr/local/bin/tool", true},
		{"another file beside it", file, node.ClientPath, false},
	} {
		if r := get(tt.c, tt.program); tt.allowed != (r.Status == http.StatusOK) || !tt.allowed && r.Status != http.StatusForbidden {
			t.Errorf("%s: %d %s", tt.name, r.Status, r.Body)
		}
	}
}

// A rule may name a link in a container that is alone, too, from its first moment on.
func TestLinkOfTheFirstProcess(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	w.Policy("pod", byLink)
	c := w.Container(node.Policy("pod"), node.Args("/usr/local/bin/tool", "get", "http://"+fakenet.WebHost+"/first"))
	link(c, "usr/local/bin/tool", node.ClientPath)
	if o := c.Run(); o.Results(c)[0].Status != http.StatusOK {
		t.Errorf("%s", o)
	}
}

// weatherTerminated has requests decided, so that the client meets the sandbox's CA.
const weatherTerminated = `version: 1
network_policies:
  weather:
    endpoints:
      - {host: api.weather.example, port: 443, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: /**}}]}
`

const bundlePath = "/etc/ssl/certs/ca-certificates.crt"

// Each container of a pod keeps the CAs of its own image.
func TestCAsInAPod(t *testing.T) {
	cases.Show(t, "clients/pods")
	t.Parallel()
	w := node.New(t).Apart()
	w.Policy("pod", weatherTerminated)
	pause := w.Container(node.NetnsPath(w.Net), node.Policy("pod"))
	node.Must(t, os.RemoveAll(filepath.Join(pause.Rootfs(), "etc/ssl")))
	pause.Start()
	own, err := os.ReadFile(w.Net.CACert())
	node.Must(t, err)
	private, pruned := w.Container(node.NetnsPath(w.Net)), w.Container(node.NetnsPath(w.Net))
	put(private, bundlePath, "# private\n"+string(own))
	put(pruned, bundlePath, "# pruned\n")
	for _, tt := range []struct {
		c     *node.Container
		begin string
		count int
	}{{private, "# private", 2}, {pruned, "# pruned", 1}} {
		tt.c.Start()
		for _, path := range []string{bundlePath, "/etc/openshell-tls/ca-bundle.pem"} {
			text := tt.c.Exec("/bin/cat", path).Stdout
			if !strings.HasPrefix(text, tt.begin) || strings.Count(text, "BEGIN CERTIFICATE") != tt.count {
				t.Errorf("%s, %s: %d certificates, it begins with %.20q", tt.begin, path, strings.Count(text, "BEGIN CERTIFICATE"), text)
			}
		}
		node.Worked(t, tt.c.Client("get", "https://"+fakenet.WeatherHost+"/forecast"))
	}
	pause.Delete()
	private.Delete()
	node.Worked(t, pruned.Client("get", "https://"+fakenet.WeatherHost+"/forecast"))
}

// A root file system that cannot be written to needs no mount points: nothing is
// made in it, and the CA is where the client looks for it.
func TestReadOnlyRootFileSystem(t *testing.T) {
	for _, tt := range []struct {
		name, tool string
		mount      func(c *node.Container, source string) error
	}{
		{"bind", "", func(c *node.Container, source string) error {
			if err := unix.Mount(source, c.Rootfs(), "", unix.MS_BIND, ""); err != nil {
				return err
			}
			return unix.Mount("", c.Rootfs(), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}},
		{"overlay", "", func(c *node.Container, source string) error {
			return unix.Mount("overlay", c.Rootfs(), "overlay", 0, "lowerdir="+source+":"+c.World.T.TempDir())
		}},
		{"squashfs", "mksquashfs", func(c *node.Container, source string) error {
			return mountImage(c, "squashfs", "mksquashfs", source, c.Bundle+"/image", "-noappend", "-quiet")
		}},
		{"erofs", "mkfs.erofs", func(c *node.Container, source string) error {
			return mountImage(c, "erofs", "mkfs.erofs", c.Bundle+"/image", source)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cases.Show(t, "bundles/read-only file system")
			if _, err := exec.LookPath(tt.tool); tt.tool != "" && err != nil {
				t.Skipf("the machine has no %s", tt.tool)
			}
			w := node.New(t)
			w.Policy("ro", weatherTerminated)
			c := w.Container(node.Policy("ro"))
			for _, dir := range []string{"proc", "dev", "sys"} {
				node.Must(t, os.MkdirAll(filepath.Join(c.Rootfs(), dir), 0o755))
			}
			source := filepath.Join(c.Bundle, "source")
			node.Must(t, os.Rename(c.Rootfs(), source))
			node.Must(t, os.Mkdir(c.Rootfs(), 0o755))
			node.Must(t, tt.mount(c, source))
			t.Cleanup(func() { unmount(t, c.Rootfs()) })
			c.Start()
			get := []string{"get", "https://" + fakenet.WeatherHost + "/forecast"}
			node.Worked(t, c.Client(get...))
			for name, exec := range execWays {
				r := exec(c, node.SequenceOf(get, []string{"env", "SSL_CERT_FILE"})...).Results(c)
				if r[0].Status != http.StatusOK || r[1].Fields["SSL_CERT_FILE"] != "/dev/.openshell/tls/ca-bundle.pem" {
					t.Errorf("%s: %+v", name, r)
				}
			}
			refused(t, c.Client("get", "https://"+fakenet.GitHubHost+"/x"), http.StatusForbidden)
			c.Delete()
			c.AwaitEnd()
			if _, err := os.Lstat(filepath.Join(source, "etc/openshell-tls")); !os.IsNotExist(err) {
				t.Errorf("the mount point was made: %v", err)
			}
		})
	}
}

// mountImage makes an image of a file system and mounts it.
func mountImage(c *node.Container, kind string, argv ...string) error {
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	out, err := exec.Command("mount", "-t", kind, "-o", "loop,ro", c.Bundle+"/image", c.Rootfs()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mount: %w: %s", err, out)
	}
	return nil
}

// Containers that are made from one bundle directory at the same time have a sandbox
// each.
func TestOneBundleDirectory(t *testing.T) {
	cases.Show(t, "bundles/two containers, one bundle directory")
	t.Parallel()
	w := node.New(t)
	first := w.Container()
	all := []*node.Container{first}
	for i := range 3 {
		c := *first
		c.ID = fmt.Sprintf("%s-%d", first.ID, i)
		all = append(all, &c)
	}
	var creates []*exec.Cmd
	for _, c := range all {
		c.Begun = true
		t.Cleanup(func() { w.OCI("delete", "--force", c.ID) })
		creates = append(creates, w.Begin("--root", w.Root, "create", "--bundle", c.Bundle, c.ID))
	}
	for _, cmd := range creates {
		if o := w.Finish(cmd); o.Status != 0 {
			t.Fatalf("create: %s", o)
		}
	}
	spaces := map[uint64]bool{}
	for _, c := range all {
		info := c.Info()
		c.LetGo()
		ns := networkOf(t, c.PID())
		if ns != info.InnerID.Ino || spaces[ns] {
			t.Errorf("%s is in the network namespace %d, its sandbox has %d", c.ID, ns, info.InnerID.Ino)
		}
		spaces[ns] = true
	}
	seen := map[string]bool{}
	for _, c := range all {
		ca := c.Exec("/bin/cat", "/etc/openshell-tls/openshell-ca.pem").Stdout
		if !strings.Contains(ca, "BEGIN CERTIFICATE") || seen[ca] {
			t.Errorf("%s has no CA of its own: %s", c.ID, ca)
		}
		seen[ca] = true
		c.Delete()
	}
	if len(w.Sandboxes()) > 0 {
		t.Errorf("sandboxes after the last container: %q", w.Sandboxes())
	}
}

// networkOf tells a process's network namespace from others.
func networkOf(t *testing.T, pid int) uint64 {
	t.Helper()
	var st unix.Stat_t
	node.Must(t, unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &st))
	return st.Ino
}

// Where the run directory cannot be written to, the container is deleted all the
// same, and what is left of it is named.
func TestDeleteWithAReadOnlyRunDirectory(t *testing.T) {
	cases.Show(t, "faults/read-only run directory")
	t.Parallel()
	w := node.New(t)
	c := w.Container().Start()
	info := c.Info()
	node.Must(t, unix.Mount(w.RunDir, w.RunDir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unmount(t, w.RunDir) })
	node.Must(t, unix.Mount("", w.RunDir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	o := w.OCI("delete", "--force", c.ID)
	if dir := filepath.Join(w.RunDir, "sandboxes", c.SandboxID()); o.Status != 0 || !strings.Contains(o.Stderr, dir+" is left") {
		t.Errorf("delete: %s", o)
	}
	if c.State() != "gone" || info.Alive() {
		t.Errorf("the container is %s, the supervisor alive: %v", c.State(), info.Alive())
	}
	node.Must(t, unix.Mount("", w.RunDir, "", unix.MS_BIND|unix.MS_REMOUNT, ""))
	next := w.Container().Start()
	if got := w.Sandboxes(); !slices.Equal(got, []string{next.SandboxID()}) {
		t.Errorf("after the next create: %q", got)
	}
}
