// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// inWork lets a workload change /work.
const inWork = `version: 1
filesystem_policy: {read_write: [/work]}
network_policies:
  some: {endpoints: [{host: web.example, port: 80}], binaries: [{path: /work/program}]}
`

const (
	tlsDir = "/etc/openshell-tls"
	secret = "the host's secret"
)

// hostDir makes a directory of the host with empty ones and a file, that must stay
// as it is.
func (b *box) hostDir() (dir string) {
	t := b.World.T
	t.Helper()
	dir = t.TempDir()
	node.Must(t, os.Chmod(dir, 0o755))
	list := func() string {
		text := ""
		node.Must(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
			text += p + "\n"
			return err
		}))
		return text
	}
	for _, name := range []string{"sshd", "openshell-tls"} {
		node.Must(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	node.Must(t, os.WriteFile(filepath.Join(dir, "ca-certificates.crt"), []byte(secret), 0o644))
	before := list()
	t.Cleanup(func() {
		if after := list(); after != before {
			t.Errorf("the host's directory had\n%sand has\n%s", before, after)
		}
	})
	return dir
}

// work makes /work of the image, with directories that the workload owns.
func (b *box) work(dirs ...string) string {
	t := b.World.T
	t.Helper()
	work := filepath.Join(b.Rootfs(), "work")
	for _, dir := range append([]string{""}, dirs...) {
		node.Must(t, os.MkdirAll(filepath.Join(work, dir), 0o755))
		node.Must(t, os.Chmod(filepath.Join(work, dir), 0o777))
	}
	return work
}

// from is a relative link that leads to a path of the host where dir is one too,
// and above the root in a container.
func from(t *testing.T, dir, path string) string {
	t.Helper()
	rel, err := filepath.Rel(dir, path)
	node.Must(t, err)
	return rel
}

// The image leads a mount point to where the workload can put a link in its way,
// by the time the mount point is removed.
func TestMountPointBehindALink(t *testing.T) {
	inEveryBox(t, inWork, func(b *box) {
		t := b.World.T
		host, work := b.hostDir(), b.work("x", "y")
		node.Must(t, os.Symlink("/work/x/sshd", filepath.Join(b.Rootfs(), tlsDir)))
		b.Start()
		script := "mv /work/x /work/z && ln -s " + from(t, work, host) + " /work/x"
		if o := b.Exec("/bin/sh", "-c", script); o.Status != 0 {
			t.Fatalf("nothing was attempted: %s", o)
		}
		b.Delete()
		b.AwaitEnd()
		if _, err := os.ReadFile(filepath.Join(work, "x/ca-certificates.crt")); err != nil {
			t.Errorf("the link leads nowhere: %v", err)
		}
	})
}

// Two containers have one root file system: each keeps its CA, whichever of them
// ends, and the last leaves nothing.
func TestNeighbourKeepsItsMountPoint(t *testing.T) {
	cases.Show(t, "bundles/one rootfs, two containers")
	inEveryBox(t, inWork, func(b *box) {
		t := b.World.T
		both := []*node.Container{b.Container, b.World.Container(node.Policy("bypass"))}
		both[1].Spec.Root.Path = b.Rootfs()
		both[1].Write()
		for _, c := range both {
			c.Start()
		}
		both[0].Delete()
		both[0].AwaitEnd()
		if o := both[1].Exec("/bin/cat", tlsDir+"/ca-bundle.pem"); !strings.Contains(o.Stdout, "BEGIN CERTIFICATE") {
			t.Errorf("the neighbour has lost its CA: %s", o)
		}
		both[1].Delete()
		both[1].AwaitEnd()
		if _, err := os.Lstat(filepath.Join(b.Rootfs(), tlsDir)); !os.IsNotExist(err) {
			t.Errorf("the mount point is left: %v", err)
		}
	})
}

// A user's link in the place of a trust store leads to a file that is not theirs to
// read, or to change. It is neither copied nor covered.
func TestLinkInPlaceOfATrustStore(t *testing.T) {
	inEveryBox(t, inWork, func(b *box) {
		t := b.World.T
		for _, name := range []string{"app/.venv/lib/python3.12/site-packages/certifi", "etc"} {
			node.Must(t, os.MkdirAll(filepath.Join(b.Rootfs(), name), 0o755))
		}
		node.Must(t, os.WriteFile(filepath.Join(b.Rootfs(), "etc/shadow"), []byte(secret), 0o600))
		node.Must(t, os.Symlink("/etc/shadow", filepath.Join(b.Rootfs(), "app/.venv/lib/python3.12/site-packages/certifi/cacert.pem")))
		b.Start()
		// It is root's as before, with what was in it.
		o := b.Exec("/bin/cat", "/etc/shadow")
		if refused := o.Stdout == "" && strings.Contains(o.Stderr, "Permission denied"); o.Stdout != secret && !refused {
			t.Errorf("it has changed: %s", o)
		}
		if o := b.Exec("/bin/grep", "-r", secret, tlsDir); o.Stdout != "" || o.Status != 1 {
			t.Errorf("it was copied: %s", o)
		}
	})
}

// An image has something in the place of a file that is read from the host. It
// holds nothing up, and nothing of the host's gets in.
func TestNoFiles(t *testing.T) {
	places := []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/hosts", "/etc/resolv.conf", "/work/program"}
	for name, put := range map[string]func(t *testing.T, path, host string) error{
		"FIFO": func(_ *testing.T, path, _ string) error { return unix.Mkfifo(path, 0o666) },
		"device": func(_ *testing.T, path, _ string) error {
			return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
		},
		"endless": func(_ *testing.T, path, _ string) error {
			f, err := os.Create(path)
			node.Must(t, err)
			defer f.Close()
			return f.Truncate(1 << 40)
		},
		"link": func(t *testing.T, path, host string) error {
			return os.Symlink(from(t, filepath.Dir(path), host+"/ca-certificates.crt"), path)
		},
		"absolute link": func(_ *testing.T, path, host string) error { return os.Symlink(host+"/ca-certificates.crt", path) },
	} {
		t.Run(name, func(t *testing.T) {
			inEveryBox(t, inWork, func(b *box) {
				t := b.World.T
				host := b.hostDir()
				b.work()
				for _, p := range places {
					path := filepath.Join(b.Rootfs(), p)
					if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
					node.Must(t, put(t, path, host))
				}
				b.Start()
				o := b.Exec("/bin/cat", tlsDir+"/ca-bundle.pem")
				if !strings.Contains(o.Stdout, "BEGIN CERTIFICATE") || strings.Contains(o.Stdout, secret) {
					t.Errorf("the workload's bundle: %s", o)
				}
			})
		})
	}
}

// A running container exchanges directories and links of an image all the time, of
// which others are made and ended meanwhile.
func TestSharedImageThatChanges(t *testing.T) {
	const creates = 13 // in each of four boxes
	inEveryBox(t, inWork, func(b *box) {
		t := b.World.T
		host, work := b.hostDir(), b.work("etc", "ssl")
		image := b.Rootfs()
		away := from(t, work, host)
		node.Must(t, os.WriteFile(work+"/ssl/ca-certificates.crt", []byte("the image's"), 0o644))
		for link, target := range map[string]string{
			image + tlsDir: "/work/etc/openshell-tls", work + "/etc2": away, work + "/ssl2": away,
		} {
			node.Must(t, os.Symlink(target, link))
		}
		node.Must(t, os.RemoveAll(image+"/etc/ssl/certs"))
		node.Must(t, os.Symlink("/work/ssl", image+"/etc/ssl/certs"))
		b.Start()
		loop := b.BeginExec(attemptPath, "exchange", "/work/etc", "/work/etc2", "/work/ssl", "/work/ssl2")
		node.Eventually(t, node.Patience, "exchanges", func() bool { return strings.Contains(node.TextOf(loop.Stdout), "exchanging") })
		made := 0
		for i := range creates {
			c := b.World.Container(node.Policy("bypass"))
			c.Spec.Root.Path = image
			c.Spec.Process.Args = []string{"/bin/cat", tlsDir + "/ca-bundle.pem"}
			c.Write()
			o := c.Run()
			if strings.Contains(o.Stdout, secret) {
				t.Errorf("create %d: the workload sees the host's file", i)
			}
			if o.Status == 0 {
				made++
			}
		}
		if o := b.Exec("/bin/true"); o.Status != 0 {
			t.Errorf("the container has ended: %s", o)
		}
		t.Logf("%d of %d were made", made, creates)
		b.Delete()
		b.World.Finish(loop)
	})
}
