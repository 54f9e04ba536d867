// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// halfClose sends what follows the host and the port, ends its side, and prints the first line of what comes back, as
// nc -N does.
const halfClose = `
ask() {
	python3 -c 'import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
s.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
s.shutdown(socket.SHUT_WR)
print(s.makefile("rb").readline().decode().strip())' "$@"
}
`

// Clients that end their side before the answer get it: to a request, and from a server that speaks first.
func TestHalfClosedClients(t *testing.T) {
	t.Parallel()
	cases.Show(t, "clients/half-close")
	wantCommand(t, "python3")
	w := node.New(t)
	const script = halfClose +
		`ask ` + fakenet.WebHost + ` 80 'GET /slow/200ms HTTP/1.0\r\nHost: ` + fakenet.WebHost + `\r\n\r\n'
ask ` + fakenet.MailHost + ` 25 ''`
	for _, mode := range []string{"--permissive", ""} {
		o := shell(w, mode, "half", script)
		lines := strings.Split(o.Stdout, "\n")
		if o.Status != 0 || len(lines) != 3 || !strings.HasSuffix(lines[0], " 200 OK") || !strings.HasPrefix(lines[1], "220 ") {
			t.Fatalf("%q: %s", mode, o)
		}
		if mode != "" {
			w.Operate("approve", "half", "--all")
		}
	}
}
