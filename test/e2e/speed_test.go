// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"openshell.ai/openshell/test/node"
)

// speedVariable asks for the comparison with a container without a sandbox, and
// says how many runs of each the best is taken of. It wants an idle machine.
const speedVariable = "OPENSHELL_SPEED_RUNS"

// load is what the client does against an origin that speaks and closes.
type load struct {
	name   string
	size   int // bytes of each connection
	count  int // connections
	atOnce int
}

func (l load) argv(addr string) []string {
	return []string{node.ClientPath, "load", "-n", strconv.Itoa(l.count), "-c", strconv.Itoa(l.atOnce), addr}
}

// TestSpeed compares connections that are passed on unseen with those of the same
// container under the low-level runtime alone, in the same prepared namespace
// with its virtual Ethernet device.
func TestSpeed(t *testing.T) {
	runs, err := strconv.Atoi(os.Getenv(speedVariable))
	if err != nil {
		t.Skipf("%s is not set to a number of runs", speedVariable)
	}
	const host = "45.64.99.1"
	w := node.New(t, map[string]any{"audit": map[string]any{"ocsf": true}}).Apart()
	w.Policy("speed", fmt.Sprintf("version: 1\nnetwork_policies:\n  origin: {endpoints: [{host: %s, ports: [9001, 9002, 9003]}]}\n", host))
	for _, l := range []struct {
		port int
		load
	}{
		{9001, load{"throughput of one connection", 1 << 30, 1, 1}},
		{9002, load{"connections, 16 at once", 1, 4000, 16}},
		{9003, load{"connections, one after another", 1, 1000, 1}},
	} {
		addr := net.JoinHostPort(host, strconv.Itoa(l.port))
		speak(t, w, addr, l.size)
		var plain, boxed []time.Duration
		for range runs {
			plain = append(plain, timed(w, l.load, addr, (*node.Container).RunPlain))
			boxed = append(boxed, timed(w, l.load, addr, (*node.Container).Run, node.Policy("speed")))
		}
		p, b := slices.Min(plain), slices.Min(boxed)
		what := fmt.Sprintf("%.2f and %.2f Gbit/s", gbit(l.load, p), gbit(l.load, b))
		if l.count > 1 {
			what = fmt.Sprintf("%.0f and %.0f a second", rate(l.load, p), rate(l.load, b))
		}
		t.Logf("%s: plain and sandboxed %s, ratio %.2f", l.name, what, p.Seconds()/b.Seconds())
	}
}

func gbit(l load, d time.Duration) float64 { return float64(l.size*l.count) * 8 / 1e9 / d.Seconds() }
func rate(l load, d time.Duration) float64 { return float64(l.count) / d.Seconds() }

// timed runs a load in a new container and returns how long the client took.
func timed(w *node.World, l load, addr string, run func(*node.Container) node.Outcome, edits ...node.Edit) time.Duration {
	w.T.Helper()
	c := w.Container(append(edits, node.NetnsPath(w.Net), node.Args(l.argv(addr)...))...)
	o := run(c)
	r := o.Results(c)[0]
	if o.Status != 0 || r.Bytes != int64(l.size*l.count) {
		w.T.Fatalf("%s: %s", l.name, o)
	}
	return time.Duration(max(r.Millis, 1)) * time.Millisecond
}

// speak serves an address of the internet with size bytes for each connection.
func speak(t *testing.T, w *node.World, addr string, size int) {
	t.Helper()
	var l net.Listener
	node.Must(t, w.Net.DoInternet(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { l.Close() })
	chunk := make([]byte, min(size, 1<<20))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for left := size; left > 0; {
					n, err := conn.Write(chunk[:min(left, len(chunk))])
					if left -= n; err != nil {
						return
					}
				}
			}()
		}
	}()
}
