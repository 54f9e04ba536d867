// SPDX-License-Identifier: Apache-2.0

// Package shim is a containerd runtime v2 shim: containerd's own runc shim with
// a sandbox around each container or pod. The task service stays containerd's;
// this package's part is to prepare a container's bundle before it is created,
// to confine what is executed in it, to take its sandbox down with it, and to
// speak the start protocols of containerd 1.6 to 2.4. The sandbox, its proxy
// included, lives in the shim's process.
package shim

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	ctrdversion "github.com/containerd/containerd/v2/version"
	"github.com/containerd/log"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/version"
)

// Name is the runtime's name, by which clients ask for it.
const Name = "io.containerd.openshell.v1"

// Main runs the shim: it is all of the program.
func Main() {
	// What containerd's library says of itself is this program's: for -v and the
	// daemon's list of runtimes.
	ctrdversion.Version, ctrdversion.Revision = version.String(), ""
	sandbox.CaptureLog() // standard error is containerd's log
	m := runtimeManager{manager.NewShimManager(Name)}
	if started, err := startLegacy(m); started || err != nil {
		exitOn(err)
		return
	}
	registerTaskService()
	shim.RunShim(context.Background(), m)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", Name, err)
		os.Exit(1)
	}
}

// runtimeManager starts shims as containerd's runc shim does, and cleans up
// after ones that died.
type runtimeManager struct{ inner shim.Shim }

var _ shim.Shim = runtimeManager{}

// Name implements shim.Shim.
func (m runtimeManager) Name() string { return m.inner.Name() }

// Start implements shim.Shim: it starts the shim that serves a container, or
// finds the one of its pod.
func (m runtimeManager) Start(ctx context.Context, params *bootapi.BootstrapParams) (*bootapi.BootstrapResult, error) {
	result, err := m.inner.Start(ctx, params)
	if err != nil {
		return nil, err
	}
	return result, fileio.Replace(addressFile, []byte(result.GetAddress()), 0o600)
}

// addressFile is where a bundle, the working directory of the start command, has
// the shim's address. Daemons before containerd 1.7 find their shims by it when
// they are started anew; later ones keep it in a file of their own.
const addressFile = "address"

// Info implements shim.Shim: it describes the low-level runtime that containers of
// these options get.
func (m runtimeManager) Info(ctx context.Context, options io.Reader) (*types.RuntimeInfo, error) {
	data, err := io.ReadAll(options)
	if err != nil {
		return nil, fmt.Errorf("runtime options: %w", err)
	}
	var asked anypb.Any
	if err := proto.Unmarshal(data, &asked); err != nil {
		return nil, fmt.Errorf("runtime options: %w", err)
	}
	s, err := readOptions(&asked)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(s.configPath)
	if err != nil {
		return nil, fmt.Errorf("openshell: %w", err)
	}
	applied, err := s.apply(c)
	if err != nil {
		return nil, err
	}
	if data, err = proto.Marshal(applied); err != nil {
		return nil, fmt.Errorf("runtime options: %w", err)
	}
	info, err := m.inner.Info(ctx, bytes.NewReader(data))
	if err == nil && asked.GetValue() != nil {
		info.Options = &asked
	}
	return info, err
}

// Stop implements shim.Shim. containerd calls it after every task's end and
// after a shim's death, with the bundle's directory as the working one.
func (m runtimeManager) Stop(ctx context.Context, id string) (shim.StopStatus, error) {
	status, err := m.inner.Stop(ctx, id)
	cwd, cerr := os.Getwd()
	if cerr == nil {
		bundle := filepath.Join(filepath.Dir(cwd), id)
		cerr = closeAbandoned(ctx, bundle, id)
		removeSocket(bundle)
	}
	if cerr != nil {
		log.G(ctx).WithError(cerr).Warn("failed to take down the sandbox")
	}
	return status, err
}

// removeSocket removes the socket of a shim that died: nobody else does.
func removeSocket(bundle string) {
	address, err := shim.ReadAddress(filepath.Join(bundle, addressFile))
	if err == nil && !shim.CanConnect(address) {
		_ = shim.RemoveSocket(address)
	}
}

// closeAbandoned takes down what the sandbox of a shim that died left.
func closeAbandoned(ctx context.Context, bundle, id string) error {
	note, err := readNote(bundle)
	if os.IsNotExist(err) {
		return nil // it was never prepared
	}
	if err != nil {
		return err
	}
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return err
	}
	c, err := config.Load(note.Config)
	if err != nil {
		return err
	}
	return sandbox.Close(ctx, c, filepath.Join(note.Root, ns), id)
}
