// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"openshell.ai/openshell/internal/crash"
	"openshell.ai/openshell/internal/fileio"
)

// The control socket speaks HTTP: POST /METHOD with a JSON body. Only root can
// reach it, by the mode of the sandbox's directory.
const (
	controlSocket = "control.sock"
	maxMessage    = 1 << 20
)

// joinRequest asks a running sandbox to take one more container.
type joinRequest struct {
	Container Container    `json:"container"`
	Stores    []TrustStore `json:"stores,omitempty"`
	Creator   int          `json:"creator"`
	DNS       Resolver     `json:"dns"` // of which only the hosts file counts
}

// leaveRequest tells a sandbox that a container was deleted.
type leaveRequest struct {
	Root string `json:"root"`
	ID   string `json:"id"`
}

func (s *Sandbox) serveControl() error {
	l, err := listenUnix(filepath.Join(s.dir, controlSocket))
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /attach", handle(s.join))
	mux.HandleFunc("POST /detach", handle(func(r leaveRequest) (struct{}, error) {
		s.Detach(r.Root, r.ID)
		return struct{}{}, nil
	}))
	mux.HandleFunc("POST /admit", handle(func(a admission) (struct{}, error) {
		return struct{}{}, s.admit(a)
	}))
	mux.HandleFunc("POST /reload", handle(func(struct{}) (struct{}, error) {
		return struct{}{}, s.Reload()
	}))
	mux.HandleFunc("POST /describe", handle(func(struct{}) (struct{}, error) {
		return struct{}{}, s.updateInfo(func() {})
	}))
	mux.HandleFunc("POST /flush", func(w http.ResponseWriter, r *http.Request) {
		handle(func(struct{}) (Health, error) { return s.flush(r.Context()) })(w, r)
	})
	server := &http.Server{Handler: crash.Handler(mux), ReadTimeout: callTimeout}
	s.wg.Go(func() { _ = server.Serve(l) }) // until it is closed
	context.AfterFunc(s.ctx, func() { server.Close() })
	return nil
}

// handle decodes a request, answers it, and encodes the answer or the error.
func handle[Req, Resp any](f func(Req) (Resp, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := json.NewDecoder(io.LimitReader(r.Body, maxMessage)).Decode(&req); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		resp, err := f(req)
		if err != nil {
			status := http.StatusConflict
			if errors.Is(err, errEnding) {
				status = http.StatusGone
			}
			http.Error(w, err.Error(), status)
			return
		}
		_ = json.NewEncoder(w).Encode(resp)
	}
}

// errUnreachable says that nobody answers on a control socket: its supervisor
// is not ready yet, or is about to end.
var errUnreachable = errors.New("the supervisor cannot be reached")

// errUnsupported says that a supervisor of another version does not know what it
// is asked for.
var errUnsupported = errors.New("the supervisor is of another version, which does not know this")

// call asks the supervisor of a sandbox. in and out may be nil.
func call(ctx context.Context, runDir string, info Info, method string, in, out any) error {
	ctx, cancel := attend(ctx, info.Supervisor)
	defer cancel()
	if in == nil {
		in = struct{}{}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sandbox/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	socket := filepath.Join(sandboxesDir(runDir), info.ID, controlSocket)
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialUnix(ctx, socket) },
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return unanswered(ctx, err)
	}
	defer resp.Body.Close()
	data, err := fileio.ReadAll(resp.Body, maxMessage)
	if err != nil {
		return unanswered(ctx, err)
	}
	if resp.StatusCode == http.StatusGone {
		return errEnding
	}
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s: %w", method, errUnsupported)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(data)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// unanswered tells a supervisor that hangs from one that is not there.
func unanswered(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.DeadlineExceeded) {
			return fmt.Errorf("its supervisor has not answered for %s", callTimeout)
		}
		return cause
	}
	return fmt.Errorf("%w: %w", errUnreachable, err)
}

// sun_path holds 108 bytes (unix(7)), which a run directory and a container's
// id may exceed; so the directory is opened and the socket named through it.

func listenUnix(path string) (*net.UnixListener, error) {
	dir, short, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err == nil {
		l.SetUnlinkOnClose(false) // the whole directory is removed
	}
	return l, err
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	dir, short, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", short)
}

func shorten(path string) (*os.File, string, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, "", err
	}
	return dir, fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), nil
}
