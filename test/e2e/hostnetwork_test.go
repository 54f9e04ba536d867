// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

func hostNetwork(s *specs.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
}

// answers reports what comes back of a word, "" where nobody answers.
func answers(w *node.World, network, addr string) string {
	answer := make([]byte, 5)
	err := w.Net.Do(func() error {
		c, err := net.DialTimeout(network, addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Write([]byte("knock")); err != nil {
			return err
		}
		_, err = io.ReadFull(c, answer)
		return err
	})
	if err != nil {
		return ""
	}
	return string(answer)
}

// What listens in a container that was to have the host's network is reachable at the host's addresses, as long as it
// listens. Not parallel: the ports are the host's.
func TestHostNetwork(t *testing.T) {
	cases.Show(t, "bundles/host network")
	w := node.New(t)
	w.Policy("server", noNetwork)
	host := fakenet.OuterAddrs()
	for name, tt := range map[string]struct {
		edits   []node.Edit
		listen  []string
		reached []string // "network address"
		not     []string
	}{
		"any address, enforcing": {[]node.Edit{node.Policy("server")}, []string{"0.0.0.0:8080"},
			[]string{"tcp 127.0.0.1:8080", "tcp " + host[0].String() + ":8080"}, []string{"tcp 127.0.0.1:8081"}},
		"IPv6, permissive": {[]node.Edit{node.Permissive}, []string{"[::]:8080"},
			[]string{"tcp [::1]:8080", "tcp 127.0.0.1:8080", "tcp [" + host[1].String() + "]:8080"}, nil},
		"loopback": {[]node.Edit{node.Policy("server")}, []string{"127.0.0.1:8080"},
			[]string{"tcp 127.0.0.1:8080"}, []string{"tcp " + host[0].String() + ":8080"}},
		"the host's address": {[]node.Edit{node.Policy("server")}, []string{host[0].String() + ":8080"},
			[]string{"tcp " + host[0].String() + ":8080"}, []string{"tcp 127.0.0.1:8080"}},
		"UDP": {[]node.Edit{node.Policy("server")}, []string{"-udp", "0.0.0.0:8053"}, []string{"udp 127.0.0.1:8053"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			argv := append([]string{node.ClientPath, "listen", "-t", "10m"}, tt.listen...)
			c := w.Container(append(tt.edits, hostNetwork, node.Args(argv...))...).Start()
			for _, at := range tt.reached {
				network, addr, _ := strings.Cut(at, " ")
				node.Eventually(t, node.Patience, at+" answers", func() bool { return answers(w, network, addr) == "knock" })
			}
			for _, at := range tt.not {
				network, addr, _ := strings.Cut(at, " ")
				if got := answers(w, network, addr); got != "" {
					t.Errorf("%s answers %q", at, got)
				}
			}
			c.Delete()
			c.AwaitEnd()
			for _, at := range tt.reached {
				if network, addr, _ := strings.Cut(at, " "); answers(w, network, addr) != "" {
					t.Errorf("%s answers still", at)
				}
			}
		})
	}
	t.Run("the client's address", func(t *testing.T) {
		c := w.Container(node.Policy("server"), hostNetwork, node.Args(node.ClientPath, "listen", "-t", "10m", "0.0.0.0:8080")).Start()
		at := host[0].String() + ":8080"
		node.Eventually(t, node.Patience, at+" answers", func() bool { return answers(w, "tcp", at) == "knock" })
		node.Eventually(t, node.Patience, "the client's address", func() bool {
			return strings.Contains(c.Output(), `"remote":"`+host[0].String()+":")
		})
		c.Delete()
		c.AwaitEnd()
	})
	t.Run("a port that somebody has", func(t *testing.T) {
		var l net.Listener
		node.Must(t, w.Net.Do(func() (err error) {
			l, err = net.Listen("tcp4", "0.0.0.0:8080")
			return err
		}))
		defer l.Close()
		c := w.Container(node.Policy("server"), hostNetwork, node.Args(node.ClientPath, "listen", "-t", "10m", "0.0.0.0:8080")).Start()
		node.Eventually(t, node.Patience, "a line of the log", func() bool {
			return strings.Contains(w.AuditLog(c), "0.0.0.0:8080 is in use by another program")
		})
	})
	// A container with a network namespace of its own has its ports for itself.
	t.Run("another network", func(t *testing.T) {
		c := w.Container(node.Policy("server"), node.Args(node.ClientPath, "listen", "-t", "10m", "0.0.0.0:8080")).Start()
		node.Eventually(t, node.Patience, "the listener", func() bool { return strings.Contains(c.Output(), "listening") })
		if got := answers(w, "tcp", "127.0.0.1:8080"); got != "" {
			t.Errorf("it answers %q", got)
		}
	})
}
