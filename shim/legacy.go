// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"

	"openshell.ai/openshell/internal/fileio"
)

// maxBootstrap bounds what is read of a daemon's parameters, in bytes.
const maxBootstrap = 10 << 20

// startLegacy answers the start command of daemons before containerd 2.3,
// which send no bootstrap parameters and want the shim's bare address back.
// It reports whether it did; newer daemons are containerd's library's.
func startLegacy(m shim.Shim) (bool, error) {
	params, ok := startParams(os.Args[1:])
	if !ok {
		return false, nil
	}
	input, err := fileio.ReadAll(os.Stdin, maxBootstrap)
	if err != nil {
		return true, fmt.Errorf("read standard input: %w", err)
	}
	if isBootstrap(input, params) {
		return false, restoreStdin(input)
	}
	ctx := namespaces.WithNamespace(context.Background(), params.Namespace)
	result, err := m.Start(ctx, params)
	if err != nil {
		return true, err
	}
	_, err = fmt.Print(result.GetAddress())
	return true, err
}

// startParams reads the command line of the start command.
func startParams(args []string) (*bootapi.BootstrapParams, bool) {
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	namespace := f.String("namespace", "", "")
	id := f.String("id", "", "")
	address := f.String("address", "", "")
	binary := f.String("publish-binary", "", "")
	debug := f.Bool("debug", false, "")
	f.String("socket", "", "")
	f.String("debug-socket", "", "")
	f.String("bundle", "", "")
	if err := f.Parse(args); err != nil || f.Arg(0) != "start" {
		return nil, false
	}
	params := &bootapi.BootstrapParams{
		InstanceID:             *id,
		Namespace:              *namespace,
		ContainerdGrpcAddress:  *address,
		ContainerdTtrpcAddress: os.Getenv("TTRPC_ADDRESS"),
		ContainerdBinary:       *binary,
	}
	if *debug {
		params.LogLevel = bootapi.LogLevel_LOG_LEVEL_DEBUG
	}
	return params, true
}

// isBootstrap tells bootstrap parameters from the runtime options that older
// daemons send: options can be read as parameters, but name another container.
func isBootstrap(input []byte, flags *bootapi.BootstrapParams) bool {
	var sent bootapi.BootstrapParams
	return len(input) > 0 && proto.Unmarshal(input, &sent) == nil &&
		sent.GetInstanceID() == flags.GetInstanceID() && sent.GetNamespace() == flags.GetNamespace()
}

// restoreStdin puts what was read back for containerd's library.
func restoreStdin(input []byte) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	os.Stdin = r
	go func() {
		defer w.Close()
		_, _ = io.Copy(w, bytes.NewReader(input))
	}()
	return nil
}

// registerTaskV2 serves the task API under the name that daemons before
// containerd 2.0 call.
func registerTaskV2(server *ttrpc.Server, s taskapi.TTRPCTaskService) {
	server.RegisterService("containerd.task.v2.Task", &ttrpc.ServiceDesc{Methods: map[string]ttrpc.Method{
		"State":      method(s.State),
		"Create":     method(s.Create),
		"Start":      method(s.Start),
		"Delete":     method(s.Delete),
		"Pids":       method(s.Pids),
		"Pause":      method(s.Pause),
		"Resume":     method(s.Resume),
		"Checkpoint": method(s.Checkpoint),
		"Kill":       method(s.Kill),
		"Exec":       method(s.Exec),
		"ResizePty":  method(s.ResizePty),
		"CloseIO":    method(s.CloseIO),
		"Update":     method(s.Update),
		"Wait":       method(s.Wait),
		"Stats":      method(s.Stats),
		"Connect":    method(s.Connect),
		"Shutdown":   method(s.Shutdown),
	}})
}

func method[Req, Resp any](f func(context.Context, *Req) (*Resp, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		req := new(Req)
		if err := unmarshal(req); err != nil {
			return nil, err
		}
		return f(ctx, req)
	}
}
