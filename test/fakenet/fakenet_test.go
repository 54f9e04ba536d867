// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func newNet(t *testing.T) *Net {
	t.Helper()
	n, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return n
}

// find returns the one recorded request that matches.
func find(t *testing.T, n *Net, match func(Request) bool) Request {
	t.Helper()
	var found []Request
	for _, r := range n.Requests() {
		if match(r) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d requests match, want 1, of %+v", len(found), n.Requests())
	}
	return found[0]
}

func TestOuterIsAnotherNamespaceThatProcessesCanOpen(t *testing.T) {
	n := newNet(t)
	var own, outer unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(n.Outer(), &outer); err != nil {
		t.Fatal(err)
	}
	if own.Ino == outer.Ino {
		t.Fatal("outer is the namespace of this process")
	}
	// Another process, not in it, sees the same namespace at the path; one
	// started by Do is in it.
	named, err := exec.Command("stat", "-L", "-c", "%i", n.Outer()).Output()
	if err != nil {
		t.Fatal(err)
	}
	var inside []byte
	err = n.Do(func() (err error) {
		inside, err = exec.Command("stat", "-L", "-c", "%i", "/proc/self/ns/net").Output()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(named) != string(inside) {
		t.Errorf("path leads to %s, Do to %s", named, inside)
	}
}

func TestDoComesBack(t *testing.T) {
	n := newNet(t)
	namespace := func() string {
		ns, err := netns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		return ns.UniqueId()
	}
	home, failure := namespace(), errors.New("failure")
	var inside string
	err := n.Do(func() error {
		inside = namespace()
		return failure
	})
	if err != failure {
		t.Errorf("got error %v, want the function's", err)
	}
	if inside == home {
		t.Error("the function ran in the caller's namespace")
	}
	if now := namespace(); now != home {
		t.Errorf("came back to %s, left %s", now, home)
	}
}

func TestCloseRemovesEverything(t *testing.T) {
	n, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := n.DialContext(t.Context(), "tcp", EchoHost+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	dir, outer := n.Dir(), n.Outer()
	var before unix.Stat_t
	if err := unix.Stat(outer, &before); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	var after unix.Stat_t
	if err := unix.Stat(outer, &after); err == nil && after.Ino == before.Ino {
		t.Error("the outer namespace is still held open")
	}
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("an open connection was not ended")
	}
}

func TestScratchOfKilledProcessesIsSwept(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	live, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	dead, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the kernel does for a process that is gone
	stranger := filepath.Join(os.TempDir(), "fnord")
	if err := os.Mkdir(stranger, 0o700); err != nil {
		t.Fatal(err)
	}
	sweepScratch(os.TempDir())
	for path, want := range map[string]bool{live.path: true, dead.path: false, stranger: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", path, err == nil, want)
		}
	}
}

func TestUnusedAddressesRefuseAndBlackholeIsSilent(t *testing.T) {
	n := newNet(t)
	for _, address := range []string{RefusedHost + ":80", "8.8.8.8:443", "[2606:4700::1111]:443", WeatherHost + ":81"} {
		if _, err := n.DialContext(t.Context(), "tcp", address); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: got %v, want connection refused", address, err)
		}
	}
	for _, addr := range Addrs(BlackholeHost) {
		err := n.Do(func() error {
			_, err := dialTimeout(netip.AddrPortFrom(addr, 80), 200*time.Millisecond)
			return err
		})
		if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
			t.Errorf("%s: got %v, want a timeout", addr, err)
		}
	}
}

func TestConnectionsReachOuterFromTheInternet(t *testing.T) {
	n := newNet(t)
	for _, addr := range OuterAddrs() {
		l, err := listenIn(n.spaces.outer, netip.AddrPortFrom(addr, 4000))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				io.WriteString(conn, "inside")
				conn.Close()
			}
		}()
		err = n.DoInternet(func() error {
			conn, err := dialTimeout(netip.AddrPortFrom(addr, 4000), 5*time.Second)
			if err != nil {
				return err
			}
			defer conn.Close()
			if text, err := io.ReadAll(conn); err != nil || string(text) != "inside" {
				t.Errorf("%s: read %q, %v", addr, text, err)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestEnvNamesEveryHost(t *testing.T) {
	n := newNet(t)
	env := strings.Join(n.Env(), "\n") + "\n"
	for _, want := range []string{
		"FAKENET_ADDR_API_WEATHER_EXAMPLE=45.64.45.10 2a0e:b107:45::a\n",
		"FAKENET_ADDR_CNAME_PRIVATE_EXAMPLE=10.45.0.10 fd45:a::10\n",
		"FAKENET_OUTER=" + n.Outer() + "\n",
	} {
		if !strings.Contains(env, want) {
			t.Errorf("no %q in %s", want, env)
		}
	}
}
