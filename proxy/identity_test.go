// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/decision"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/proxy/identity"
)

// helperArg makes the test binary a workload: it runs inside the inner
// namespace, so that the kernel knows whose connections it makes.
const helperArg = "workload-helper"

// runHelper requests each URL, through one address for all of them, and prints
// the answers' statuses.
func runHelper(args []string) int {
	addr, urls := args[0], args[1:]
	for _, url := range urls {
		c := &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
		}}
		resp, err := c.Get(url)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		fmt.Println(resp.StatusCode)
	}
	return 0
}

func TestProcessIsIdentifiedByTheKernel(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, permissive(""), func(r *room, c *Config) {
		finder, err := identity.NewFinder(r.inner)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { finder.Close() })
		c.Identify = finder.Identify
	})
	var out []byte
	err = r.inner.Do(func() (err error) {
		out, err = exec.Command(self, helperArg, "45.64.45.12:80", "http://45.64.45.12/who").Output()
		return err
	})
	if err != nil || string(out) != "200\n" {
		t.Fatalf("helper said %q, %v", out, err)
	}
	records := r.await(2)
	for _, rec := range records {
		if rec.Process.Path != self || len(rec.Process.SHA256) != 64 || rec.Process.PID == 0 {
			t.Errorf("record of %+v, want %s", rec.Process, self)
		}
	}
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
}

func TestUnknownProcessIsRefusedInBothModes(t *testing.T) {
	const allowed = "{host: web.example, port: 80}"
	for _, v := range []decision.Snapshot{enforcing(allowed), permissive(allowed)} {
		r := newRoom(t, v, func(_ *room, c *Config) {
			c.Identify = func(netip.AddrPort, netip.AddrPort) (identity.Process, error) {
				return identity.Process{}, errors.New("failed to resolve peer binary: gone")
			}
		})
		resp := r.get(r.client(false), "http://web.example/x")
		if resp.StatusCode != 403 || !strings.Contains(resp.text, `"reason":"failed to resolve peer binary: gone"`) {
			t.Errorf("answer %d %s", resp.StatusCode, resp.text)
		}
		resp = r.say(r.mustDial("10.200.0.1:3128"), "CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\n")
		if resp.StatusCode != 403 {
			t.Errorf("CONNECT: status %d", resp.StatusCode)
		}
		if len(internet.Requests()) != 0 {
			t.Error("it reached the origin")
		}
		r.want(
			"request denied identity web.example:80 GET http:/x 403 tls=none (failed to resolve peer binary: gone)",
			"connect denied identity web.example:80 (failed to resolve peer binary: gone)",
		)
	}
}

// TestConnectionsWithOnePortHaveTheirOwnProcesses has connections that differ by
// their destination alone, as a workload's do when it has many: the kernel gives
// all but one of them other ports on their way to the proxy.
func TestConnectionsWithOnePortHaveTheirOwnProcesses(t *testing.T) {
	var mu sync.Mutex
	asked := map[netip.AddrPort]netip.AddrPort{}
	r := newRoom(t, permissive(""), func(_ *room, c *Config) {
		c.Identify = func(local, remote netip.AddrPort) (identity.Process, error) {
			mu.Lock()
			defer mu.Unlock()
			asked[remote] = local
			return tool, nil
		}
	})
	local := netip.AddrPortFrom(netns.WorkloadAddr4, 40000)
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(local), Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
		return err
	}}
	for _, remote := range []string{"45.64.45.12:80", "45.64.45.12:81", "45.64.45.13:80"} {
		var conn net.Conn
		if err := r.inner.Do(func() (err error) { conn, err = dialer.Dial("tcp4", remote); return err }); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		r.say(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		mu.Lock()
		if got := asked[netip.MustParseAddrPort(remote)]; got != local {
			t.Errorf("the connection to %s is %s's, not %s's", remote, got, local)
		}
		mu.Unlock()
	}
}
