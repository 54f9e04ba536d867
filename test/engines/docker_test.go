// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// docker is dockerd with a containerd of its own. It plumbs the namespace of a
// container's first process between create and start.
type docker struct{}

func (d *docker) log(n *node) string { return filepath.Join(n.dir, "dockerd.log") }

func (d *docker) socket(n *node) string { return "unix://" + filepath.Join(n.dir, "docker.sock") }

func (d *docker) boot(t *testing.T, n *node) {
	t.Helper()
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("this machine has no docker command line (23 or later, for --annotation)")
	}
	settings, err := json.Marshal(map[string]any{
		"runtimes":       map[string]any{"openshell": map[string]string{"path": filepath.Join(built.bin, "openshell")}},
		"storage-driver": "vfs",
		"userland-proxy": false,
		"data-root":      filepath.Join(n.dir, "docker"),
		"exec-root":      "/run/docker", // a path that sockets fit into; the machine has a /run of its own
		"pidfile":        filepath.Join(n.dir, "docker.pid"),
		"hosts":          []string{d.socket(n)},
		"cgroup-parent":  "/" + built.tag,
		"features":       map[string]bool{"containerd-snapshotter": false},
	})
	must(t, err)
	config := filepath.Join(n.dir, "daemon.json")
	must(t, os.WriteFile(config, settings, 0o600))
	n.daemon(t, d.log(n), "dockerd", "--config-file", config)
	eventually(t, "dockerd answers", func() bool { return d.cli(n, "info").Run() == nil })
	n.mustRun(t, d.cli(n, "import", "--change", "ENV PATH=/bin:/usr/bin", built.image, image))
}

func (d *docker) cli(n *node, args ...string) *exec.Cmd {
	return n.on(append([]string{"docker", "-H", d.socket(n)}, args...)...)
}

func (d *docker) command(n *node, o options, argv ...string) *exec.Cmd {
	args := append([]string{"run", "--runtime", "openshell"}, o.flags()...)
	return d.cli(n, append(append(args, image), argv...)...)
}

func (d *docker) remove(n *node, name string) *exec.Cmd { return d.cli(n, "rm", "--force", name) }
