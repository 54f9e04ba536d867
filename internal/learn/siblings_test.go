// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"
	"testing"
)

func TestSuggestions(t *testing.T) {
	hosts := func(names ...string) []Denial {
		var denials []Denial
		for _, n := range names {
			denials = append(denials, with(request1("GET", "/a"), func(d *Denial) { d.Host = n }))
		}
		return denials
	}
	for name, c := range map[string]struct {
		denials []Denial
		want    string
	}{
		"numbers":             {hosts("cdn1.img.example", "cdn2.img.example", "cdn17.img.example"), "*.img.example"},
		"hashes":              {hosts("a1b2c3d4.img.example.com", "99aa88bb.img.example.com", "deadbe01.img.example.com"), "*.img.example.com"},
		"a label within":      {hosts("api.shard1.x.example", "api.shard2.x.example", "api.shard3.x.example"), "api.*.x.example"},
		"two only":            {hosts("cdn1.img.example", "cdn2.img.example"), ""},
		"names":               {hosts("a.img.example", "b.img.example", "c.img.example"), ""},
		"different forms":     {hosts("cdn1.img.example", "api2.img.example", "www3.img.example"), ""},
		"two labels vary":     {hosts("a1.b1.x.example", "a2.b2.x.example", "a3.b3.x.example"), ""},
		"a public suffix":     {hosts("cdn1.co.uk", "cdn2.co.uk", "cdn3.co.uk"), ""},
		"a private one":       {hosts("bucket1.s3.amazonaws.com", "bucket2.s3.amazonaws.com", "bucket3.s3.amazonaws.com"), ""},
		"another private one": {hosts("u1.github.io", "u2.github.io", "u3.github.io"), ""},
		"blobs":               {hosts("t1.blob.core.windows.net", "t2.blob.core.windows.net", "t3.blob.core.windows.net"), ""},
		"other requests":      {append(hosts("cdn1.img.example", "cdn2.img.example"), with(request1("GET", "/b"), func(d *Denial) { d.Host = "cdn3.img.example" })), ""},
		"another port":        {append(hosts("cdn1.img.example", "cdn2.img.example"), with(request1("GET", "/a"), func(d *Denial) { d.Host, d.Port = "cdn3.img.example", 8443 })), ""},
		"another program":     {append(hosts("cdn1.img.example", "cdn2.img.example"), with(request1("GET", "/a"), func(d *Denial) { d.Host, d.Binary = "cdn3.img.example", "/bin/x" })), ""},
		"addresses":           {hosts("192.0.2.1", "192.0.2.2", "192.0.2.3"), ""},
	} {
		all := proposeAll(c.denials...)
		found := Suggestions(all)
		if c.want == "" && len(found) != 0 || c.want != "" && len(found) != len(c.denials) {
			t.Errorf("%s: %v", name, found)
		}
		for _, text := range found {
			if !strings.Contains(text, " for "+c.want+" would") {
				t.Errorf("%s: %s", name, text)
			}
		}
		for _, p := range all {
			if strings.Contains(p.Rule.Endpoints[0].Host, "*") {
				t.Errorf("%s: a wildcard was proposed: %+v", name, p.Rule)
			}
		}
	}
}
