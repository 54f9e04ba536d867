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

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/test/fakenet"
)

// tryDir is where commands are tried.
func (w *world) tryDir() string { return filepath.Join(w.dir, "work") }

// try runs a command of the host in a sandbox.
func (w *world) try(args ...string) outcome {
	w.t.Helper()
	cmd := w.command(append([]string{"try"}, args...)...)
	cmd.Dir = w.tryDir()
	w.launch(cmd)
	return w.finish(cmd)
}

// Not parallel: what is left is counted on the whole machine.
func TestTry(t *testing.T) {
	w := newWorld(t)
	w.policy("tried", noNetwork)
	must(t, os.Mkdir(w.tryDir(), 0o755))
	client := filepath.Join(w.tryDir(), "client")
	must(t, copyFile(binaries.client, client))
	url := "https://" + fakenet.WeatherHost + "/forecast"
	reader := &container{w: w}

	w.try("--policy", "tried", "--permissive", "--", "/bin/true") // makes the directories that stay
	before := snap(t, w.runDir)
	o := w.try("--policy", "tried", "--permissive", "--bind", "--", client, "get", url)
	if o.status != 0 {
		t.Fatal(o)
	}
	worked(t, o.results(reader)[0])
	// What it learned is on disk when it is over.
	list := w.proposals("tried")
	if len(list) != 1 || list[0].Binary != client || list[0].Status != learn.StatusPending {
		t.Fatalf("proposals %+v", list)
	}

	o = w.try("--policy", "tried", "--bind", "--", client, "get", url)
	refused(t, o.results(reader)[0], http.StatusForbidden)
	w.operate("approve", "tried", "--all")
	worked(t, w.try("--policy", "tried", "--bind", "--", client, "get", url).results(reader)[0])

	// Only what is written below the working directory is real.
	away := filepath.Join(w.dir, "away")
	o = w.try("--policy", "tried", "--permissive", "--bind", "--", "/bin/sh", "-c", "echo a > here; echo b > "+away+"; cat "+away+"; exit 7")
	if o.status != 7 || !strings.HasSuffix(o.stdout, "b\n") {
		t.Errorf("a command that writes: %s", o)
	}
	if _, err := os.Stat(filepath.Join(w.tryDir(), "here")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(away); !os.IsNotExist(err) {
		t.Errorf("a file outside of the working directory: %v", err)
	}
	if o := w.try("--policy", "tried", "--", "/bin/no-such-program"); o.status != 125 || !strings.Contains(o.stderr, "no such file") {
		t.Errorf("a command that does not exist: %s", o)
	}
	nothingLeft(t, "trying", before, w.runDir)
}

// Not parallel: the ports are the network's.
func TestTryPublishes(t *testing.T) {
	w := newWorld(t)
	w.policy("tried", noNetwork)
	must(t, os.Mkdir(w.tryDir(), 0o755))
	client := filepath.Join(w.tryDir(), "client")
	must(t, copyFile(binaries.client, client))
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
			server := w.command(append(args, tt.listen)...)
			server.Dir = w.tryDir()
			w.launch(server)
			eventually(t, patience, "the server listens", func() bool { return strings.Contains(textOf(server.Stdout), "listening") })

			again := w.try("--policy", "tried", "--publish", tt.publish, "--", "/bin/true")
			if again.status == 0 || strings.Count(strings.TrimSpace(again.stderr), "\n") > 0 || !strings.Contains(again.stderr, "is in use by another program") {
				t.Errorf("a port in use: %s", again)
			}

			var c net.Conn
			must(t, w.net.Do(func() (err error) {
				c, err = net.Dial(tt.network, tt.at)
				return err
			}))
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			_, err := c.Write([]byte("knock"))
			must(t, err)
			answer := make([]byte, 5)
			if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "knock" {
				t.Errorf("answer %q, %v", answer, err)
			}
			if tt.udp != "" {
				_, err := c.Write([]byte("leave"))
				must(t, err)
			}
			c.Close()
			if o := w.finish(server); o.status != 0 {
				t.Error(o)
			}
		})
	}
	if o := w.try("--publish", "80", "--", "/bin/true"); o.status != 125 || !strings.Contains(o.stderr, "HOSTPORT:PORT") {
		t.Errorf("a malformed port: %s", o)
	}
}
