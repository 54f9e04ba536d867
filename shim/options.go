// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/typeurl/v2"
	"github.com/pelletier/go-toml/v2"
	"google.golang.org/protobuf/types/known/anypb"
	"openshell.ai/openshell/internal/config"
)

// settings are a task's options, whichever message brought them.
type settings struct {
	runc       *runcoptions.Options
	configPath string // of the node's configuration; "" for the default
}

// runcTable is the options table of containerd's configuration, as far as it
// is about runc. The names are those of runc's own options.
type runcTable struct {
	BinaryName    string
	Root          string
	SystemdCgroup bool
	NoPivotRoot   bool
	NoNewKeyring  bool
	ShimCgroup    string
	IoUid         uint32
	IoGid         uint32
	CriuPath      string
	CriuImagePath string
	CriuWorkPath  string
	// Keys of runtimeoptions itself, which containerd leaves in the table.
	TypeURL    string `toml:"TypeUrl"`
	ConfigPath string
	ConfigBody string
}

// readOptions reads a create request's options. Only runc's own runtimes get
// runc's options message from CRI, dockerd and ctr; all others get
// runtimeoptions.v1.Options, whose ConfigPath is the node's configuration of
// openshell and whose ConfigBody is the options table in TOML.
func readOptions(any *anypb.Any) (settings, error) {
	s := settings{runc: &runcoptions.Options{}}
	if any.GetValue() == nil {
		return s, nil
	}
	message, err := typeurl.UnmarshalAny(any)
	if err != nil {
		return s, fmt.Errorf("runtime options: %w", err)
	}
	switch o := message.(type) {
	case *runcoptions.Options:
		s.runc = o
	case *runtimeoptions.Options:
		s.configPath = o.GetConfigPath()
		if s.runc, err = parseTable(o.GetConfigBody()); err != nil {
			return s, err
		}
	default:
		return s, fmt.Errorf("runtime options: %s is not understood; use runc's or runtimeoptions.v1.Options",
			any.GetTypeUrl())
	}
	return s, nil
}

func parseTable(body []byte) (*runcoptions.Options, error) {
	var t runcTable
	if err := toml.Unmarshal(body, &t); err != nil {
		return nil, fmt.Errorf("runtime options: ConfigBody is not a table of runc's options: %w", err)
	}
	return &runcoptions.Options{
		BinaryName: t.BinaryName, Root: t.Root, SystemdCgroup: t.SystemdCgroup,
		NoPivotRoot: t.NoPivotRoot, NoNewKeyring: t.NoNewKeyring, ShimCgroup: t.ShimCgroup,
		IoUid: t.IoUid, IoGid: t.IoGid,
		CriuImagePath: t.CriuImagePath, CriuWorkPath: t.CriuWorkPath,
	}, nil
}

// apply completes runc's options with the node's: the low-level runtime is the
// one that openshell is configured for, unless the engine names another.
func (s settings) apply(c *config.Config) (*anypb.Any, error) {
	if s.runc.BinaryName == "" {
		s.runc.BinaryName = c.Runtime
	}
	return typeurl.MarshalAnyToProto(s.runc)
}
