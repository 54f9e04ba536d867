// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"io"
	"net/http"
)

// oddAnswers are what clients take and parsers do not, or take otherwise.
var oddAnswers = map[string]string{
	"icy":    "ICY 200 OK\r\nicy-name: radio\r\nContent-Type: text/plain\r\n\r\nmusic",
	"length": "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\nConnection: close\r\n\r\nabc",
	"names":  "HTTP/1.1 200 OK\r\nX-jenkins-CLI: 1\r\netag: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}

// serveOdd gives one of them, by its name.
func serveOdd(w http.ResponseWriter, r *http.Request) {
	_, name := splitPath(r)
	answer, ok := oddAnswers[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, answer)
}
