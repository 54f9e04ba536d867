// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
	"openshell.ai/openshell/test/programs"
)

// What the shim says of itself is what the configured low-level runtime says.
func TestShimDescribesItsRuntime(t *testing.T) {
	t.Parallel()
	cases.Show(t, "bundles/what the shim offers")
	dir := t.TempDir()
	shim := filepath.Join(cmp.Or(os.Getenv("OPENSHELL_BIN"), dir), "containerd-shim-openshell-v1")
	if _, err := os.Stat(shim); err != nil {
		node.Must(t, programs.Build(shim, "../../cmd/containerd-shim-openshell-v1"))
	}
	runtimes := map[string]string{} // by version
	for _, version := range []string{"1.0.1", "1.0.2"} {
		path := filepath.Join(dir, "runtime-"+version)
		node.Must(t, os.WriteFile(path, []byte(`#!/bin/sh
[ "$*" = features ] && echo '{"ociVersionMin":"1.0.0","ociVersionMax":"`+version+`"}'
`), 0o755))
		runtimes[version] = path
	}
	config := filepath.Join(dir, "config.yaml")
	node.Must(t, os.WriteFile(config, []byte("runtime: "+runtimes["1.0.1"]+"\n"), 0o600))
	for name, tt := range map[string]struct {
		options any
		want    string
	}{
		"none":                    {nil, "1.0.1"},
		"CRI's":                   {&runtimeoptions.Options{ConfigPath: config}, "1.0.1"},
		"CRI's, with a runtime":   {&runtimeoptions.Options{ConfigPath: config, ConfigBody: []byte("BinaryName = '" + runtimes["1.0.2"] + "'")}, "1.0.2"},
		"runc's":                  {&runcoptions.Options{}, "1.0.1"},
		"runc's, with a runtime":  {&runcoptions.Options{BinaryName: runtimes["1.0.2"]}, "1.0.2"},
		"of a missing file":       {&runtimeoptions.Options{ConfigPath: config + "x"}, ""},
		"of a runtime that isn't": {&runcoptions.Options{BinaryName: config + "x"}, ""},
	} {
		cmd := exec.Command(shim, "-info")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OPENSHELL_CONFIG=" + config}
		if tt.options != nil {
			any, err := typeurl.MarshalAnyToProto(tt.options)
			node.Must(t, err)
			data, err := proto.Marshal(any)
			node.Must(t, err)
			cmd.Stdin = bytes.NewReader(data)
		}
		out, err := cmd.Output()
		var info types.RuntimeInfo
		if err == nil {
			err = proto.Unmarshal(out, &info)
		}
		if tt.want == "" {
			if err == nil {
				t.Errorf("%s: %s", name, &info)
			}
			continue
		}
		node.Must(t, err)
		if got := string(info.GetFeatures().GetValue()); !strings.Contains(got, `"ociVersionMax":"`+tt.want+`"`) || info.Name != "io.containerd.openshell.v1" {
			t.Errorf("%s: %s %s, want version %s", name, info.Name, got, tt.want)
		}
	}
}
