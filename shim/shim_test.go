// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
)

// What the node's configuration runs is described, not the runc on PATH.
func TestInfoDescribesTheConfiguredRuntime(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	low := write("low", "#!/bin/sh\necho '{\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.9.7\"}'\n", 0o755)
	config := write("config.yaml", "runtime: "+low+"\n", 0o600)
	given, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigPath: config})
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	m := runtimeManager{manager.NewShimManager(Name)}
	info, err := m.Info(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	offered, err := typeurl.UnmarshalAny(info.Features)
	if f, ok := offered.(*features.Features); err != nil || !ok || f.OCIVersionMax != "1.9.7" || info.Name != Name {
		t.Errorf("%+v offers %+v, %v", info, offered, err)
	}
	if !proto.Equal(info.Options, given) {
		t.Errorf("options %+v", info.Options)
	}
	for text, bad := range map[string][]byte{"of another message": []byte("\x0a\x03abc\x12\x01x"), "torn": []byte("\x0a")} {
		if info, err := m.Info(t.Context(), bytes.NewReader(bad)); err == nil {
			t.Errorf("options that are %s: %+v", text, info)
		}
	}
}
