// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ServeControl answers on a Unix socket, which reaches across namespaces, until
// [Net.Close]:
//
//	GET  /requests  what the origins saw, one [Request] a line
//	GET  /queries   what the name server was asked, one [Query] a line
//	POST /reset     forget both
func (n *Net) ServeControl(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("open the control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { writeLines(w, n.Requests()) })
	mux.HandleFunc("GET /queries", func(w http.ResponseWriter, _ *http.Request) { writeLines(w, n.Queries()) })
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		n.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(n.log.With("server", "control").Handler(), slog.LevelWarn),
	}
	n.closeLater(server)
	n.serving.Go(func() { server.Serve(l) })
	return nil
}

func writeLines[T any](w http.ResponseWriter, items []T) {
	w.Header().Set("Content-Type", "application/jsonl")
	encoder := json.NewEncoder(w)
	for _, item := range items {
		if encoder.Encode(item) != nil {
			return // the client is gone
		}
	}
}
