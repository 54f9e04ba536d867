// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"path/filepath"
	"strings"
)

// The daemon's settings, as an administrator writes them for each version.
const (
	settings1 = `version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "PAUSE"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "CNI"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.openshell]
    runtime_type = "io.containerd.openshell.v1"
    pod_annotations = ["openshell.ai/*"]
    container_annotations = ["openshell.ai/*"]
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.openshell.options]
      ConfigPath = "CONFIG"
`
	settings2 = `version = 3
root = "DIR/root"
state = "DIR/state"
[grpc]
  address = "SOCKET"
[plugins."io.containerd.internal.v1.opt"]
  path = "DIR/opt"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "PAUSE"
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "CNI"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.openshell]
    runtime_type = "io.containerd.openshell.v1"
    pod_annotations = ["openshell.ai/*"]
    container_annotations = ["openshell.ai/*"]
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.openshell.options]
      ConfigPath = "CONFIG"
`
)

func (n *node) daemonSettings() string {
	text := settings2
	if n.old() {
		text = settings1
	}
	return strings.NewReplacer("DIR", n.dir, "SOCKET", n.socket(), "PAUSE", pauseImage, "CNI", n.cniDir(),
		"CONFIG", filepath.Clean(n.config)).Replace(text)
}
