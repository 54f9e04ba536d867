// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/internal/config"
)

func TestUpstreamProxy(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := write("good", "user:se:cret\n", 0o600)
	for name, tt := range map[string]struct {
		config config.UpstreamProxy
		want   string // of the error; "" for none
	}{
		"none":                 {config.UpstreamProxy{}, ""},
		"credentials":          {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: good}, ""},
		"no file":              {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: filepath.Join(dir, "x")}, "upstream_proxy.credentials_file: "},
		"everybody reads":      {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: write("open", "u:secret", 0o644)}, "chmod 600 " + filepath.Join(dir, "open")},
		"others write":         {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: write("w", "u:secret", 0o602)}, "upstream_proxy.credentials_file: "},
		"no password":          {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: write("one", "secret\n", 0o600)}, "want one line with user:password"},
		"no user":              {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: write("pw", ":secret\n", 0o600)}, "want one line with user:password"},
		"two lines":            {config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: write("two", "u:secret\nX: y", 0o600)}, "want one line with user:password"},
		"no CA":                {config.UpstreamProxy{URL: "https://p.example:1", CA: filepath.Join(dir, "x")}, "upstream_proxy.ca: "},
		"a CA that is none":    {config.UpstreamProxy{URL: "https://p.example:1", CA: good}, "holds no certificate in PEM"},
		"a URL that cannot be": {config.UpstreamProxy{URL: "p"}, "upstream_proxy.url: "},
	} {
		proxy, err := UpstreamProxy(tt.config)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %q", name, err)
		}
		if (proxy != nil) != (err == nil && tt.config.URL != "") {
			t.Errorf("%s: proxy %v", name, proxy)
		}
	}
	proxy, err := UpstreamProxy(config.UpstreamProxy{URL: "http://p.example:1", CredentialsFile: good})
	if err != nil {
		t.Fatal(err)
	}
	// What the file has now counts: passwords change while sandboxes run.
	for text, want := range map[string]string{"user:se:cret\n": "Basic dXNlcjpzZTpjcmV0", "u:p\r\n": "Basic dTpw"} {
		write("good", text, 0o600)
		if got, err := proxy.Authorization(); got != want || err != nil {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
