// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// nerdctl is containerd's command line, with a containerd of its own. A
// createRuntime hook of nerdctl's plumbs the container's namespace with CNI.
type nerdctl struct {
	// runtime is what --runtime says: openshell is the OCI command line below
	// runc's shim, io.containerd.openshell.v1 is openshell's shim.
	runtime string
}

func (c nerdctl) log(n *node) string { return filepath.Join(n.dir, "containerd.log") }

// containerdSocket is short enough for sun_path (unix(7)); the machine has a /run of its own.
const containerdSocket = "/run/c.sock"

func (c nerdctl) boot(t *testing.T, n *node) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(built.tools, "nerdctl")); err != nil {
		t.Skip("nerdctl could not be built: see what hack/tools says")
	}
	settings := fmt.Sprintf("version = 3\nroot = %q\nstate = \"/run/c\"\ndisabled_plugins = [\"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\"]\n"+
		"[grpc]\naddress = %q\n", filepath.Join(n.dir, "containerd"), containerdSocket)
	config := filepath.Join(n.dir, "containerd.toml")
	must(t, os.WriteFile(config, []byte(settings), 0o600))
	n.daemon(t, c.log(n), "containerd", "--config", config)
	eventually(t, "containerd answers", func() bool { return c.cli(n, "info").Run() == nil })
	archive := filepath.Join(n.dir, "image-archive.tar")
	must(t, writeArchive(archive, built.image))
	n.mustRun(t, c.cli(n, "load", "--input", archive))
}

func (c nerdctl) cli(n *node, args ...string) *exec.Cmd {
	return n.on(append([]string{"nerdctl", "--address", containerdSocket, "--namespace", built.tag, "--snapshotter", "native",
		"--data-root", filepath.Join(n.dir, "nerdctl"), "--cgroup-manager", "cgroupfs",
		"--cni-path", "/usr/lib/cni", "--cni-netconfpath", filepath.Join(n.dir, "networks")}, args...)...)
}

func (c nerdctl) command(n *node, o options, argv ...string) *exec.Cmd {
	args := append([]string{"run", "--runtime", c.runtime}, o.flags()...)
	return c.cli(n, append(append(args, image), argv...)...)
}

func (c nerdctl) remove(n *node, name string) *exec.Cmd { return c.cli(n, "rm", "--force", name) }

// writeArchive packs a root file system as docker save does.
func writeArchive(path, rootfs string) error {
	layer, err := os.ReadFile(rootfs)
	if err != nil {
		return err
	}
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Env: []string{"PATH=/bin:/usr/bin"}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	files := []struct {
		name    string
		content any
	}{
		{"config.json", config},
		{"manifest.json", []map[string]any{{"Config": "config.json", "RepoTags": []string{image}, "Layers": []string{"layer.tar"}}}},
		{"layer.tar", layer},
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	for _, f := range files {
		content, packed := f.content.([]byte)
		if !packed {
			if content, err = json.Marshal(f.content); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
	}
	return w.Close()
}
