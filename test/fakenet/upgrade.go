// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

// serveUpgrade switches to the first protocol that is asked for, whatever its name, and sends back what it is
// sent until that ends, as a container engine does where it attaches to a process that runs cat. The request's
// body comes before.
func serveUpgrade(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.Header.Get("Upgrade"), ",")
	body, err := io.ReadAll(io.LimitReader(r.Body, echoLimit))
	if err != nil || name == "" || !strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		w.Header().Set("Upgrade", "tcp")
		http.Error(w, "an upgrade is required", http.StatusUpgradeRequired)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	const raw = "Content-Type: application/vnd.docker.raw-stream\r\n"
	fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\n%sConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s", raw, name, body)
	_, _ = io.Copy(conn, buffered)
}
