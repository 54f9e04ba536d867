package proxy

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// asksForWebSocket tells whether a request is the handshake of RFC 6455
// section 4.1, by the header fields that a server goes by.
func asksForWebSocket(r *http.Request) bool {
	return httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") &&
		strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}
