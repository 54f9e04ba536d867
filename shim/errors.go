// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"errors"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"openshell.ai/openshell/internal/sandbox"
)

// classified is an error with a class of errdefs, which its text does not name.
type classified struct {
	error
	class error
}

func (c classified) Unwrap() []error { return []error{c.error, c.class} }

// toGRPC gives an error the code by which clients of the task API tell what went
// wrong. One of no class keeps its own words: containerd appends a class's to what the user
// is to read, in lines of their own.
func toGRPC(err error) error {
	var class error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sandbox.ErrExists):
		class = errdefs.ErrAlreadyExists
	case errors.As(err, new(*sandbox.StoppedError)):
		class = errdefs.ErrUnavailable
	case status.Code(err) != codes.Unknown || status.Code(errgrpc.ToGRPC(err)) != codes.Unknown:
		return errgrpc.ToGRPC(err) // it has one, as containerd's own errors have
	default:
		return err
	}
	return errgrpc.ToGRPC(classified{err, class})
}
