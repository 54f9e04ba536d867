// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// podman with one of its network backends. It prepares a namespace for each
// container and names its path.
type podman struct{ backend string }

func (p podman) log(*node) string { return "" }

func (p podman) boot(t *testing.T, n *node) {
	t.Helper()
	// podman gives a runtime next to nothing of its environment.
	openshell := filepath.Join(n.dir, "openshell.sh")
	must(t, os.WriteFile(openshell, fmt.Appendf(nil, "#!/bin/sh\nOPENSHELL_CONFIG=%s exec %s \"$@\"\n",
		n.config(), filepath.Join(built.bin, "openshell")), 0o755))
	settings := fmt.Sprintf("[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n"+
		"[network]\nnetwork_backend = %q\ncni_plugin_dirs = [\"/usr/lib/cni\"]\nnetwork_config_dir = %q\n"+
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime_supports_json = [\"openshell\", \"runc\"]\n"+
		"[engine.runtimes]\nopenshell = [%q]\n", p.backend, filepath.Join(n.dir, "networks"), openshell)
	must(t, os.WriteFile(filepath.Join(n.dir, "containers.conf"), []byte(settings), 0o600))
	must(t, os.WriteFile(filepath.Join(n.dir, "storage.conf"), []byte(fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(n.dir, "storage"), filepath.Join(n.dir, "runroot"))), 0o600))
	n.mustRun(t, p.cli(n, "import", "--change", "ENV PATH=/bin:/usr/bin", built.image, image))
}

// image is what the engines know the root file system as.
const image = "openshell.test/box:1"

func (p podman) cli(n *node, args ...string) *exec.Cmd {
	cmd := n.on(append([]string{"podman", "--runtime", "openshell"}, args...)...)
	cmd.Env = append(cmd.Env, "CONTAINERS_CONF="+filepath.Join(n.dir, "containers.conf"),
		"CONTAINERS_STORAGE_CONF="+filepath.Join(n.dir, "storage.conf"))
	return cmd
}

func (p podman) command(n *node, o options, argv ...string) *exec.Cmd {
	args := append([]string{"run", "--cgroup-parent", "/" + built.tag}, o.flags()...)
	return p.cli(n, append(append(args, image), argv...)...)
}

func (p podman) remove(n *node, name string) *exec.Cmd {
	return p.cli(n, "rm", "--force", "--time", "0", name)
}

// flags are the options as podman and docker spell them.
func (o options) flags() []string {
	args := []string{"--name", o.name}
	if o.network != "" {
		args = append(args, "--network", o.network)
	}
	if o.publish != "" {
		args = append(args, "--publish", o.publish)
	}
	for _, a := range o.annotations {
		args = append(args, "--annotation", a)
	}
	if o.detach {
		return append(args, "--detach")
	}
	return append(args, "--rm")
}
