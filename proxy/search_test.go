// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/tls"
	"io"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/decision"
)

// A resolver makes a host of a short name by its search list; clients put the short one into Host and SNI.
func TestShortNames(t *testing.T) {
	const rules = "{host: web.example, port: 80, protocol: rest, access: full}\n{host: " + weather + ", port: 443, protocol: rest, access: full}"
	for _, v := range []decision.Snapshot{permissive(""), enforcing(rules)} {
		r := newRoom(t, v, func(_ *room, c *Config) { c.Search = []string{"weather.example", "example"} })
		for host, want := range map[string]int{"web": 200, "WEB": 200, "web.example": 200, "web.": 200, "we": 421, "mail": 421, "web.weather": 421, "web.example.example": 421} {
			resp := r.say(r.mustDial("web.example:80"), "GET /x HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			if resp.StatusCode != want {
				t.Errorf("permissive %v: Host: %s: %s", v.Permissive, host, resp.Status)
			}
			if want == 200 && !strings.EqualFold(resp.echo(t).Host, strings.TrimSuffix(host, ".")) {
				t.Errorf("the origin saw Host: %q for %q", resp.echo(t).Host, host)
			}
		}
		for name, ok := range map[string]bool{"api": true, "API.weather": true, weather: true, "weather": false, "mail.example": false, "ap": false} {
			for _, proto := range []string{"http/1.1", "h2"} {
				conn := tls.Client(r.mustDial(weather+":443"), r.trust(name, proto))
				err := conn.Handshake()
				if (err == nil) != ok {
					t.Errorf("permissive %v: SNI %s: %v", v.Permissive, name, err)
				}
				if ok && proto == "http/1.1" {
					io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
					if answer, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
						t.Errorf("permissive %v: SNI %s: %q, %v", v.Permissive, name, answer, err)
					}
				}
			}
		}
	}
}

// An origin of another name is no better for being reached by a short one.
func TestShortNamesAreVerified(t *testing.T) {
	r := newRoom(t, enforcing("{host: misnamed.example, port: 443, protocol: rest, access: full}"),
		func(_ *room, c *Config) { c.Search = []string{"example"} })
	conn := r.mustDialTLS("misnamed.example:443", r.trust("misnamed", "http/1.1"))
	if resp := r.say(conn, "GET /x HTTP/1.1\r\nHost: misnamed\r\n\r\n"); resp.StatusCode != 502 {
		t.Errorf("%s", resp.Status)
	}
}
