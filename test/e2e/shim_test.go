// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/api/types"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

// containerd asks the shim what the runtime can do, as kubelet asks containerd: it is what the node's configuration
// runs, not the runc on PATH.
func TestShimOffersTheConfiguredRuntime(t *testing.T) {
	cases.Show(t, "bundles/what the shim offers")
	t.Parallel()
	dir := t.TempDir()
	low, config := filepath.Join(dir, "low"), filepath.Join(dir, "config.yaml")
	script := "#!/bin/sh\necho '{\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.9.7\"}'\n"
	node.Must(t, os.WriteFile(low, []byte(script), 0o755))
	node.Must(t, os.WriteFile(config, []byte("runtime: "+low+"\n"), 0o600))
	given, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigPath: config})
	node.Must(t, err)
	options, err := proto.Marshal(given)
	node.Must(t, err)
	cmd := exec.Command(node.Program("containerd-shim-openshell-v1"), "-info")
	cmd.Stdin = bytes.NewReader(options)
	out, err := cmd.Output()
	node.Must(t, err)
	var info types.RuntimeInfo
	node.Must(t, proto.Unmarshal(out, &info))
	var offered features.Features
	if err := json.Unmarshal(info.Features.GetValue(), &offered); err != nil || offered.OCIVersionMax != "1.9.7" {
		t.Errorf("%+v offers %+v, %v", &info, offered, err)
	}
}
