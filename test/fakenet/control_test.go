// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

func TestControlTellsAndForgets(t *testing.T) {
	n := newNet(t)
	socket := filepath.Join(n.Dir(), "control.sock")
	if err := n.ServeControl(socket); err != nil {
		t.Fatal(err)
	}
	control := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer control.CloseIdleConnections()
	fetch(t, n.Client(), "https://api.weather.example/seen")

	requests := lines[Request](t, control, "http://control/requests")
	if len(requests) != 1 || requests[0].Target != "/seen" {
		t.Errorf("requests: %+v", requests)
	}
	queries := lines[Query](t, control, "http://control/queries")
	if len(queries) == 0 || queries[0].Name != WeatherHost {
		t.Errorf("queries: %+v", queries)
	}
	response, err := control.Post("http://control/reset", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if left := lines[Request](t, control, "http://control/requests"); len(left) != 0 {
		t.Errorf("after reset: %+v", left)
	}
	if left := lines[Query](t, control, "http://control/queries"); len(left) != 0 {
		t.Errorf("after reset: %+v", left)
	}
}

func lines[T any](t *testing.T, client *http.Client, url string) []T {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var out []T
	scanner := bufio.NewScanner(response.Body)
	for scanner.Scan() {
		var v T
		if err := json.Unmarshal(scanner.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, scanner.Text())
		}
		out = append(out, v)
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}
