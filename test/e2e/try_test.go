// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// Not parallel: what is left is counted on the whole machine.
// A directory may be called as it likes.
func TestTryInOddDirectories(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a,b", "a:b", `a\b`, "a b", "ä'\"$x"} {
		t.Run(name, func(t *testing.T) {
			w := node.New(t)
			w.Policy("agent", noNetwork)
			dir := filepath.Join(w.TryDir(), name)
			node.Must(t, os.MkdirAll(dir, 0o755))
			node.Must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("before"), 0o644))
			for _, bind := range [][]string{nil, {"--bind"}} {
				cmd := w.Command(append(append([]string{"try", "--policy", "agent"}, bind...), "--", "/bin/sh", "-c", "cat file; echo after > file")...)
				cmd.Dir = dir
				w.Launch(cmd)
				if o := w.Finish(cmd); o.Status != 0 || o.Stdout != "before" {
					t.Errorf("%q %q: %s", name, bind, o)
				}
			}
		})
	}
}

func TestTry(t *testing.T) {
	w := node.New(t)
	w.Policy("tried", noNetwork)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	client := filepath.Join(w.TryDir(), "client")
	node.Must(t, node.CopyFile(node.HostClient(), client))
	url := "https://" + fakenet.WeatherHost + "/forecast"
	reader := &node.Container{World: w}

	w.Try("--policy", "tried", "--permissive", "--", "/bin/true") // makes the directories that stay
	before := node.Snap(t, w.RunDir)
	o := w.Try("--policy", "tried", "--permissive", "--bind", "--", client, "get", url)
	if o.Status != 0 {
		t.Fatal(o)
	}
	node.Worked(t, o.Results(reader)[0])
	// What it learned is on disk when it is over.
	list := w.Proposals("tried")
	if len(list) != 1 || list[0].Binary != client || list[0].Status != learn.StatusPending {
		t.Fatalf("proposals %+v", list)
	}

	o = w.Try("--policy", "tried", "--bind", "--", client, "get", url)
	refused(t, o.Results(reader)[0], http.StatusForbidden)
	w.Operate("approve", "tried", "--all")
	node.Worked(t, w.Try("--policy", "tried", "--bind", "--", client, "get", url).Results(reader)[0])

	// Only what is written below the working directory is real.
	away := filepath.Join(w.Dir, "away")
	o = w.Try("--policy", "tried", "--permissive", "--bind", "--", "/bin/sh", "-c", "echo a > here; echo b > "+away+"; cat "+away+"; exit 7")
	if o.Status != 7 || !strings.HasSuffix(o.Stdout, "b\n") {
		t.Errorf("a command that writes: %s", o)
	}
	if _, err := os.Stat(filepath.Join(w.TryDir(), "here")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(away); !os.IsNotExist(err) {
		t.Errorf("a file outside of the working directory: %v", err)
	}
	if o := w.Try("--policy", "tried", "--", "/bin/no-such-program"); o.Status != 125 || !strings.Contains(o.Stderr, "no such file") {
		t.Errorf("a command that does not exist: %s", o)
	}
	node.NothingLeft(t, "trying", before, w.RunDir)
}

// Not parallel: the ports are the network's.
func TestTryPublishes(t *testing.T) {
	w := node.New(t)
	w.Policy("tried", noNetwork)
	node.Must(t, os.Mkdir(w.TryDir(), 0o755))
	client := filepath.Join(w.TryDir(), "client")
	node.Must(t, node.CopyFile(node.HostClient(), client))
	for _, tt := range []struct{ name, network, publish, at, listen, udp string }{
		{"TCP", "tcp", "18080:80", "127.0.0.1:18080", "127.0.0.1:80", ""},
		{"TCP over IPv6", "tcp", "[::1]:18081:81", "[::1]:18081", "[::1]:81", ""},
		{"UDP", "udp", "127.0.0.1:15353:53/udp", "127.0.0.1:15353", "0.0.0.0:53", "-udp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"try", "--policy", "tried", "--bind", "--publish", tt.publish, "--", client, "listen", "-t", "2m"}
			if tt.udp != "" {
				// It ends with the second: what is under way at a sandbox's end is lost.
				args = append(args, tt.udp, "-n", "2")
			} else {
				args = append(args, "-n", "1")
			}
			server := w.Command(append(args, tt.listen)...)
			server.Dir = w.TryDir()
			w.Launch(server)
			node.Eventually(t, node.Patience, "the server listens", func() bool { return strings.Contains(node.TextOf(server.Stdout), "listening") })

			again := w.Try("--policy", "tried", "--publish", tt.publish, "--", "/bin/true")
			if again.Status == 0 || strings.Count(strings.TrimSpace(again.Stderr), "\n") > 0 || !strings.Contains(again.Stderr, "is in use by another program") {
				t.Errorf("a port in use: %s", again)
			}

			var c net.Conn
			node.Must(t, w.Net.Do(func() (err error) {
				c, err = net.Dial(tt.network, tt.at)
				return err
			}))
			defer c.Close()
			c.SetDeadline(time.Now().Add(node.Patience))
			_, err := c.Write([]byte("knock"))
			node.Must(t, err)
			answer := make([]byte, 5)
			if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "knock" {
				t.Errorf("answer %q, %v", answer, err)
			}
			if tt.udp != "" {
				_, err := c.Write([]byte("leave"))
				node.Must(t, err)
			}
			c.Close()
			if o := w.Finish(server); o.Status != 0 {
				t.Error(o)
			}
		})
	}
	if o := w.Try("--publish", "80", "--", "/bin/true"); o.Status != 125 || !strings.Contains(o.Stderr, "HOSTPORT:PORT") {
		t.Errorf("a malformed port: %s", o)
	}
}
