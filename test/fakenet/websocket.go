// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"errors"
	"net/http"

	"github.com/coder/websocket"
)

// serveWebSocket sends every message back as it came, text as text and binary as
// binary, until the client closes.
func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{"echo.fakenet", "graphql-transport-ws", "graphql-ws"},
		InsecureSkipVerify: true, // any Origin: this is not a browser's server
		CompressionMode:    websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		return // Accept answered
	}
	defer conn.CloseNow()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			if closed := new(websocket.CloseError); errors.As(err, closed) {
				conn.Close(closed.Code, closed.Reason)
			}
			return
		}
		if err := conn.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}
