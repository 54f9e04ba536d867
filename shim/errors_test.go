// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"openshell.ai/openshell/internal/sandbox"
)

func TestToGRPC(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{
		"ours":           {errors.New("annotation x: wrong"), codes.Unknown},
		"exists":         {fmt.Errorf("openshell: container with id c %w", sandbox.ErrExists), codes.AlreadyExists},
		"stopped":        {fmt.Errorf("sandbox s: %w", &sandbox.StoppedError{PID: 1}), codes.Unavailable},
		"containerd's":   {errgrpc.ToGRPC(fmt.Errorf("task: %w", errdefs.ErrNotFound)), codes.NotFound},
		"not converted":  {fmt.Errorf("task: %w", errdefs.ErrNotFound), codes.NotFound},
		"and what then":  {errors.Join(errgrpc.ToGRPC(fmt.Errorf("task: %w", errdefs.ErrNotFound)), errors.New("close")), codes.NotFound},
		"took too long":  {fmt.Errorf("x: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		"runc's unknown": {status.Error(codes.Unknown, "OCI runtime create failed"), codes.Unknown},
	} {
		got := toGRPC(c.err)
		if status.Code(got) != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if text := status.Convert(got).Message(); name == "ours" && text != c.err.Error() {
			t.Errorf("%s: says %q", name, text)
		}
	}
	if err := toGRPC(nil); err != nil {
		t.Error(err)
	}
}
