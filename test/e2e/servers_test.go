// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// serverHost is the name that servers of these tests have: one below a name of the
// fake internet for which every name has an address.
const serverHost = "server." + fakenet.CDNHost

// server is a real server that a test brings to the fake internet.
type server struct {
	t   *testing.T
	w   *node.World
	dir string // its own, which every user may look into
}

// newServer makes a server's directory, outside of the test's, into which only root
// may look.
func newServer(w *node.World) *server {
	w.T.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "server-")
	node.Must(w.T, err)
	node.Must(w.T, os.Chmod(dir, 0o755))
	w.T.Cleanup(func() { os.RemoveAll(dir) })
	return &server{t: w.T, w: w, dir: dir}
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) write(name, text string, mode os.FileMode) string {
	s.t.Helper()
	node.Must(s.t, os.WriteFile(s.path(name), []byte(text), mode))
	return s.path(name)
}

// do runs a command of the host to its end.
func (s *server) do(argv ...string) {
	s.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// env has no directory that is only the tests'.
func (s *server) env() []string { return append(os.Environ(), "TMPDIR="+s.dir) }

// handle serves HTTPS on a port of the internet until the test ends.
func (s *server) handle(port int, h http.Handler) {
	s.t.Helper()
	node.Must(s.t, s.w.Net.WriteCertificate(s.dir, serverHost))
	s.handleTLS(port, h, nil, "cert.pem", "key.pem")
}

// handleTLS is handle with a certificate of the server's directory, and a configuration
// that may be nil.
func (s *server) handleTLS(port int, h http.Handler, c *tls.Config, cert, key string) {
	s.t.Helper()
	var l net.Listener
	node.Must(s.t, s.w.Net.DoInternet(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	}))
	// Without HTTP/2, which does not allow every cipher suite.
	server := &http.Server{Handler: h, TLSConfig: c, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, ErrorLog: log.New(io.Discard, "", 0)}
	go server.ServeTLS(l, s.path(cert), s.path(key))
	s.t.Cleanup(func() { server.Close() })
}

// as is a command line that a user runs.
func as(name string, argv ...string) []string {
	return append([]string{"setpriv", "--reuid", name, "--regid", name, "--clear-groups"}, argv...)
}

// give hands the directory over to a user.
func (s *server) give(name string) {
	s.t.Helper()
	u, err := user.Lookup(name)
	node.Must(s.t, err)
	uid, err := strconv.Atoi(u.Uid)
	node.Must(s.t, err)
	gid, err := strconv.Atoi(u.Gid)
	node.Must(s.t, err)
	node.Must(s.t, os.Chown(s.dir, uid, gid))
}

// start runs the server's program in the internet until the test ends, and waits
// until it listens on a TCP port.
func (s *server) start(port int, argv ...string) {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.t.TempDir(), "log"))
	node.Must(s.t, err)
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.dir, s.env(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	node.Must(s.t, s.w.Net.DoInternet(cmd.Start))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if s.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			s.t.Logf("%s:\n%s", argv[0], text)
		}
	})
	node.Eventually(s.t, node.Patience, fmt.Sprintf("%s listens on port %d", argv[0], port), func() bool {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(log.Name())
			s.t.Fatalf("%q ended: %v\n%s", argv, err, text)
		default:
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		conn, err := s.w.Net.DialContext(ctx, "tcp4", net.JoinHostPort(serverHost, strconv.Itoa(port)))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
