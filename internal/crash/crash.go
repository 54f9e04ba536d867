// SPDX-License-Identifier: Apache-2.0

// Package crash keeps a panic that what a workload sends may cause within the
// connection that sent it. What becomes of that connection is its owner's
// business; that it happened is logged, with the stack.
package crash

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
)

// Contain runs f. It reports whether f returned: a panic in it is logged, and
// goes no further. A program that leaves something locked when it panics must
// not be run so.
func Contain(what string, f func()) (returned bool) {
	defer func() {
		if !returned {
			note(what, recover())
		}
	}()
	f()
	return true
}

// Handler is Contain for HTTP requests. The connection of one that panics is
// closed.
func Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch cause := recover(); cause {
			case nil:
				return
			case http.ErrAbortHandler: // a handler's way to close the connection
			default:
				note("a request", cause)
			}
			panic(http.ErrAbortHandler)
		}()
		h.ServeHTTP(w, r)
	})
}

func note(what string, cause any) {
	if cause != nil { // nil: runtime.Goexit
		slog.Error("panic: what it was about has ended, everything else goes on",
			"in", what, "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
	}
}
