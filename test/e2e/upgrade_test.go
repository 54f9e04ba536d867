// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// attach speaks as docker exec does: it asks for another protocol, with a body before, and then sends raw bytes,
// ends its side and reads what comes back. On a refusal it prints that.
const attach = `
attach() {
	exec 3<>/dev/tcp/` + fakenet.WeatherHost + `/80
	printf 'POST /upgrade/exec/%s HTTP/1.1\r\nHost: ` + fakenet.WeatherHost + `\r\nConnection: Upgrade\r\nUpgrade: %s\r\nContent-Length: 2\r\n\r\n{}' $2 $1 >&3
	read -r version status text <&3
	while read -r line <&3 && [ "$line" != $'\r' ]; do
		case ${line,,} in content-length:*) length=${line##* };; esac
	done
	echo "$status"
	if [ $status = 101 ]; then
		printf 'raw \001bytes\n' >&3
		head -c 13 <&3 | od -An -c | tr -d ' \n'
		echo
	else
		head -c ${length%$'\r'} <&3
	fi
	exec 3>&-
}
`

// An upgrade works as it would without a sandbox, is proposed as a permission of its own on the request's rule, and
// is refused with the reason without it: another protocol, and the same one by another request.
func TestUpgradesAreLearned(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/upgrade")
	w := node.New(t)
	const script = attach + "attach tcp cat; attach tcp cat"
	const echoed = "101\n{}raw001bytes\\n\n"
	if o := shell(w, "--permissive", "attach", script); o.Status != 0 || o.Stdout != echoed+echoed {
		t.Fatalf("permissive: %s", o)
	}
	out := w.Operate("approve", "attach", "--all")
	if !strings.Contains(out, "POST http://"+fakenet.WeatherHost+":80/upgrade/exec/cat (upgrade to tcp)") {
		t.Errorf("approve --all: %s", out)
	}
	if o := shell(w, "", "attach", script); o.Status != 0 || o.Stdout != echoed+echoed {
		t.Errorf("enforcing: %s", o)
	}
	w.Net.Reset()
	for _, other := range []string{"attach udp cat", "attach tcp,udp cat", "attach tcp sh"} {
		o := shell(w, "", "attach", attach+other)
		if o.Status != 0 || !strings.HasPrefix(o.Stdout, "403\n") || !strings.Contains(o.Stdout, "upgrade to ") {
			t.Errorf("%s: %s", other, o)
		}
	}
	w.Unseen(fakenet.WeatherHost)
	o := w.OpenShell("policy", "export", "attach", "--strict-openshell")
	if o.Status == 0 || !strings.Contains(o.Stderr, ".allow.upgrade[0]: upgrades to tcp") {
		t.Errorf("strict export: %s", o)
	}
}
