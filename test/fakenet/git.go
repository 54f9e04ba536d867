// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// GitRepository is the path of the repository on GitHost. It has one commit on
// main with a README, and takes pushes.
const GitRepository = "/project.git"

// startGit serves git's smart HTTP protocol (gitprotocol-http(5)) with git's own
// CGI program.
func (n *Net) startGit() error {
	root := filepath.Join(n.dir.path, "git")
	// Made when first asked for: it costs a few processes, and most tests use
	// no git.
	prepare := sync.OnceValue(func() error { return makeRepository(root) })
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := prepare(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		n.serveGit(w, r, root)
	})
	return n.https(GitHost, handler)
}

func (n *Net) serveGit(w http.ResponseWriter, r *http.Request, root string) {
	if r.ContentLength < 0 {
		// CGI has no way to say "until the end": net/http/cgi refuses it.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		r.TransferEncoding = nil
	}
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	handler := &cgi.Handler{
		Path:   git,
		Args:   []string{"http-backend"},
		Env:    append(gitEnv(root), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
		Logger: slog.NewLogLogger(n.log.With("origin", GitHost).Handler(), slog.LevelWarn),
		Stderr: io.Discard,
	}
	handler.ServeHTTP(w, r)
}

func makeRepository(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	bare := filepath.Join(root, filepath.Base(GitRepository))
	work := filepath.Join(root, "work")
	for _, args := range [][]string{
		{"init", "--quiet", "--bare", "--initial-branch=main", bare},
		{"-C", bare, "config", "http.receivepack", "true"},
		{"clone", "--quiet", bare, work},
	} {
		if err := git(root, args...); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(work, "README.md"), []byte("# project\n"), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-C", work, "checkout", "--quiet", "-B", "main"},
		{"-C", work, "add", "README.md"},
		{"-C", work, "commit", "--quiet", "--message=first"},
		{"-C", work, "push", "--quiet", "origin", "main"},
	} {
		if err := git(root, args...); err != nil {
			return err
		}
	}
	return os.RemoveAll(work)
}

func git(root string, args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), gitEnv(root)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

// gitEnv keeps the machine's and the user's own git configuration out.
func gitEnv(root string) []string {
	return []string{
		"HOME=" + root, "XDG_CONFIG_HOME=" + root, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=fakenet", "GIT_AUTHOR_EMAIL=fakenet@git.example",
		"GIT_COMMITTER_NAME=fakenet", "GIT_COMMITTER_EMAIL=fakenet@git.example",
	}
}
