// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/annotations"
)

// example is the file of the documentation: every field, at its default.
const example = `version: 1
runtime: runc                     # low-level runtime
state_dir: /var/lib/openshell
run_dir: /run/openshell
policy_dir: /etc/openshell/policies
default_policy: ""
maximum_policy: ""
permissive:
  allowed: true
  default_ttl: 1h
  max_ttl: 24h
  on_expiry: enforce
  never: []
policy_local: { enabled: true }
tls: { extra_roots: [] }
dns: { upstream: [] }
limits: { connections: 4096, idle_timeout: 5m, header_bytes: 65536 }
supervisor: { memory: 256MiB }
identity: { required: true }
seccomp: { default_profile: true }
audit: { ocsf: true, keep_days: 7 }
metrics: { listen: "" }
`

func TestParse(t *testing.T) {
	changed := func(change func(*Config)) *Config {
		c := Default()
		change(c)
		return c
	}
	tests := []struct {
		name, in string
		want     *Config
	}{
		{"empty", "", Default()},
		{"comments", "# nothing\n\n  # yet\n", Default()},
		{"empty sections", "permissive:\ntls:\n", Default()},
		{"documented defaults", example, Default()},
		{"a document marker", "---\nversion: 1\n", Default()},
		{"runtime by path", "runtime: /usr/local/bin/crun\n", changed(func(c *Config) { c.Runtime = "/usr/local/bin/crun" })},
		{"one key of a section", "permissive: {allowed: false}\n", changed(func(c *Config) { c.Permissive.Allowed = false })},
		{"maximum below the default", "permissive: {max_ttl: 10m}\n", changed(func(c *Config) {
			c.Permissive.MaxTTL, c.Permissive.DefaultTTL = 10*time.Minute, 10*time.Minute
		})},
		{"lists", "dns: {upstream: [1.1.1.1, '[2606:4700::1111]:53', 9.9.9.9:5353]}\ntls:\n  extra_roots:\n  - /etc/ssl/corp.pem\n",
			changed(func(c *Config) {
				c.DNS.Upstream = []string{"1.1.1.1", "[2606:4700::1111]:53", "9.9.9.9:5353"}
				c.TLS.ExtraRoots = []string{"/etc/ssl/corp.pem"}
			})},
		{"ceilings", "maximum_policy: /etc/openshell/maximum.yaml\npermissive: {never: ['*.corp.example', 'db.example:5432', '[2001:db8::1]:22']}\n",
			changed(func(c *Config) {
				c.MaximumPolicy = "/etc/openshell/maximum.yaml"
				c.Permissive.Never = []string{"*.corp.example", "db.example:5432", "[2001:db8::1]:22"}
			})},
		{"a proxy", "upstream_proxy: {url: 'http://proxy.corp.example:3128', credentials_file: /etc/p, no_proxy: [10.0.0.0/8, 'fd00::/8', corp.example, .corp.example, '*.x.example:443', 10.1.2.3, '10.1.2.3:80', '::1', '[::1]:80']}\n",
			changed(func(c *Config) {
				c.UpstreamProxy = UpstreamProxy{URL: "http://proxy.corp.example:3128", CredentialsFile: "/etc/p",
					NoProxy: []string{"10.0.0.0/8", "fd00::/8", "corp.example", ".corp.example", "*.x.example:443", "10.1.2.3", "10.1.2.3:80", "::1", "[::1]:80"}}
			})},
		{"a proxy with TLS", "upstream_proxy: {url: 'https://[2001:db8::1]:3129/', ca: /etc/ca.pem}\n",
			changed(func(c *Config) {
				c.UpstreamProxy.URL, c.UpstreamProxy.CA = "https://[2001:db8::1]:3129/", "/etc/ca.pem"
			})},
		{"no policy.local", "policy_local: {enabled: false}\n", changed(func(c *Config) { c.PolicyLocal.Enabled = false })},
		{"memory", "supervisor: {memory: 1.5GiB}\n", changed(func(c *Config) { c.Supervisor.Memory = 3 << 29 })},
		{"switches", "seccomp: {default_profile: false}\naudit: {ocsf: false, keep_days: 30}\n",
			changed(func(c *Config) { c.Seccomp.DefaultProfile, c.Audit.OCSF, c.Audit.KeepDays = false, false, 30 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
	}{
		{"version", "version: 2\n", []string{"line 1: version: must be 1, not 2"}},
		{"unknown key", "version: 1\nstatedir: /x\n", []string{`line 2: unknown key "statedir"`, "state_dir"}},
		{"unknown nested key", "permissive:\n  ttl: 1h\n", []string{`line 2: permissive: unknown key "ttl"`, "default_ttl, max_ttl"}},
		{"key set twice", "runtime: a\nversion: 1\nruntime: b\n", []string{"line 3", "runtime"}},
		{"not a mapping", "- a\n", []string{"line 1: want a mapping"}},
		{"section is a scalar", "permissive: true\n", []string{"line 1: permissive: want a mapping of allowed"}},
		{"null scalar", "runtime:\n", []string{"line 1: runtime: want a string"}},
		{"duration without unit", "permissive:\n  default_ttl: 60\n", []string{"line 2: permissive.default_ttl: want a duration such as"}},
		{"number as text", "limits: {connections: many}\n", []string{"limits.connections: want a whole number"}},
		{"bool as text", "audit: {ocsf: 'true'}\n", []string{"audit.ocsf: want true or false"}},
		{"list as scalar", "dns: {upstream: 1.1.1.1}\n", []string{"dns.upstream: want a list of strings"}},
		{"broken yaml", "permissive: {allowed: true\n", []string{"yaml"}},
		{"two documents", "version: 1\n---\nversion: 1\n", []string{"single document"}},
		{"recursive alias", "permissive: &a\n  never: *a\n", nil},
		{"relative runtime", "runtime: ./runc\n", []string{`runtime: "./runc" is neither a name on PATH nor an absolute path`}},
		{"relative directory", "state_dir: var\n", []string{`state_dir: "var" is not an absolute path`}},
		{"root directory", "run_dir: /\n", []string{"run_dir"}},
		{"unclean directory", "policy_dir: /etc/../x\n", []string{"policy_dir"}},
		{"same directory", "state_dir: /run/openshell\n", []string{"run_dir: must not be state_dir"}},
		{"default policy", "default_policy: a/b\n", []string{`default_policy: "a/b"`}},
		{"default over maximum", "permissive: {default_ttl: 48h}\n", []string{"permissive.default_ttl: 48h0m0s is more than permissive.max_ttl (24h0m0s)"}},
		{"negative ttl", "permissive: {default_ttl: -1h}\n", []string{"permissive.default_ttl: must be positive"}},
		{"zero maximum", "permissive: {max_ttl: 0s}\n", []string{"permissive.max_ttl: must be positive"}},
		{"on expiry", "permissive: {on_expiry: kill}\n", []string{`must be enforce or stop, not "kill"`}},
		{"relative root", "tls: {extra_roots: [ca.pem]}\n", []string{`tls.extra_roots: "ca.pem" is not an absolute path`}},
		{"server by name", "dns: {upstream: [dns.example]}\n", []string{`dns.upstream: "dns.example" is not an IP address`}},
		{"server with port 0", "dns: {upstream: ['1.1.1.1:0']}\n", []string{"dns.upstream"}},
		{"proxy of another kind", "upstream_proxy: {url: 'socks5://p.example:1080'}\n", []string{"line 1: upstream_proxy.url: want http://host:port"}},
		{"proxy without a scheme", "upstream_proxy: {url: 'p.example:3128'}\n", []string{"upstream_proxy.url: want http://host:port"}},
		{"proxy without a port", "upstream_proxy: {url: 'http://p.example'}\n", []string{"upstream_proxy.url: want a port"}},
		{"proxy with port 0", "upstream_proxy: {url: 'http://p.example:0'}\n", []string{"upstream_proxy.url: want a port"}},
		{"proxy with a path", "upstream_proxy: {url: 'http://p.example:1/x'}\n", []string{"upstream_proxy.url: has more than"}},
		{"proxy with a password", "upstream_proxy: {url: 'http://u:secret@p.example:1'}\n", []string{"upstream_proxy.url: must not have a user or password", "upstream_proxy.credentials_file"}},
		{"relative credentials", "upstream_proxy: {url: 'http://p.example:1', credentials_file: x}\n", []string{`upstream_proxy.credentials_file: "x" is not an absolute path`}},
		{"relative CA", "upstream_proxy: {url: 'https://p.example:1', ca: x}\n", []string{`upstream_proxy.ca: "x" is not an absolute path`}},
		{"CA without TLS", "upstream_proxy: {url: 'http://p.example:1', ca: /x}\n", []string{"upstream_proxy.ca: an http:// proxy has no certificate", "tls.extra_roots"}},
		{"no_proxy alone", "upstream_proxy: {no_proxy: [10.0.0.0/8]}\n", []string{"line 1: upstream_proxy: there is no upstream_proxy.url"}},
		{"no_proxy off by bits", "upstream_proxy: {url: 'http://p.example:1', no_proxy: [10.0.0.1/8]}\n", []string{"upstream_proxy.no_proxy", "is 10.0.0.0/8 meant?"}},
		{"no_proxy of too many bits", "upstream_proxy: {url: 'http://p.example:1', no_proxy: [10.0.0.0/33]}\n", []string{"upstream_proxy.no_proxy", "not a range"}},
		{"no_proxy of everything", "upstream_proxy: {url: 'http://p.example:1', no_proxy: ['*']}\n", []string{`upstream_proxy.no_proxy: "*" is neither`}},
		{"no_proxy of a list in a string", "upstream_proxy: {url: 'http://p.example:1', no_proxy: ['a.example,b.example']}\n", []string{"upstream_proxy.no_proxy"}},
		{"no_proxy by a pattern", "upstream_proxy: {url: 'http://p.example:1', no_proxy: ['a*.example']}\n", []string{"upstream_proxy.no_proxy"}},
		{"no_proxy of a port's name", "upstream_proxy: {url: 'http://p.example:1', no_proxy: ['a.example:http']}\n", []string{"upstream_proxy.no_proxy"}},
		{"no_proxy of nothing", "upstream_proxy: {url: 'http://p.example:1', no_proxy: ['']}\n", []string{"upstream_proxy.no_proxy"}},
		{"no connections", "limits: {connections: 0}\n", []string{"limits.connections: must be from 1 to"}},
		{"no header", "limits: {header_bytes: 1}\n", []string{"limits.header_bytes: must be from 4096"}},
		{"no idling", "limits: {idle_timeout: 0s}\n", []string{"limits.idle_timeout: must be positive"}},
		{"little memory", "supervisor: {memory: 63MiB}\n", []string{"line 1: supervisor.memory: must be from 64MiB to 64GiB, not 63MiB"}},
		{"too much memory", "supervisor: {memory: 1PiB}\n", []string{"supervisor.memory: must be from 64MiB to 64GiB, not 1PiB"}},
		{"memory without a unit", "supervisor: {memory: 268435456}\n", []string{"supervisor.memory: want a size such as 256MiB"}},
		{"negative memory", "supervisor: {memory: -1MiB}\n", []string{"supervisor.memory: want a size"}},
		{"no memory", "supervisor: {memory: lots}\n", []string{"supervisor.memory: want a size"}},
		{"keep nothing", "audit: {keep_days: 0}\n", []string{"audit.keep_days: must be from 1"}},
		{"listen", "metrics: {listen: '9469'}\n", []string{`metrics.listen: "9469" is not host:port`}},
		{"relative maximum policy", "maximum_policy: max.yaml\n", []string{`line 1: maximum_policy: "max.yaml" is not an absolute path`}},
		{"identity", "identity: {required: false}\n", []string{"identity.required: false is not supported yet"}},
		{"metrics", "metrics: {listen: '127.0.0.1:9469'}\n", []string{"metrics.listen is not supported yet"}},
		{"several, in order", "version: 3\nx: 1\nrun_dir: y\n", []string{"line 1: version", "line 2: unknown", "line 3: run_dir"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse([]byte(tt.in))
			if err == nil {
				t.Fatalf("accepted as %+v", c)
			}
			rest := err.Error()
			for _, part := range tt.want {
				_, after, ok := strings.Cut(rest, part)
				if !ok {
					t.Fatalf("error %q lacks %q", err, part)
				}
				rest = after
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error tells a password: %q", err)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error spans lines: %q", err)
			}
		})
	}
}

func TestMarshalReadsBack(t *testing.T) {
	c := Default()
	c.Runtime, c.DNS.Upstream, c.Permissive.DefaultTTL = "crun", []string{"1.1.1.1"}, 90*time.Second
	c.Supervisor.Memory = 100<<20 + 1
	data, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("got %+v, want %+v", got, c)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte("runtime: crun\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.yaml")
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, []byte(strings.Repeat("# comment\n", 1<<17)), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, env string
		runtime, err    string
	}{
		{"by path", file, "", "crun", ""},
		{"by environment", "", file, "crun", ""},
		{"path before environment", file, missing, "crun", ""},
		{"missing path", missing, "", "", "missing.yaml"},
		{"missing in environment", "", missing, "", "missing.yaml"},
		{"directory", dir, "", "", "not a regular file"},
		{"too large", large, "", "", "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(PathVariable, tt.env)
			c, err := Load(tt.path)
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v lacks %q", err, tt.err)
				}
			case err != nil:
				t.Error(err)
			case c.Runtime != tt.runtime || c.File() != file:
				t.Errorf("runtime %q of %s, want %q", c.Runtime, c.File(), tt.runtime)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	node := Default()
	node.Permissive.MaxTTL = 2 * time.Hour
	forbidding := Default()
	forbidding.Permissive.Allowed = false
	tests := []struct {
		name     string
		node     *Config
		req      annotations.Request
		ttl      time.Duration
		onExpiry string
		err      []string
	}{
		{"enforcing", node, annotations.Request{}, 0, "", nil},
		{"enforcing where permissive is forbidden", forbidding, annotations.Request{Policy: "a"}, 0, "", nil},
		{"defaults", node, annotations.Request{Permissive: true}, time.Hour, "enforce", nil},
		{"own", node, annotations.Request{Permissive: true, TTL: 2 * time.Hour, OnExpiry: "stop"}, 2 * time.Hour, "stop", nil},
		{"too long", node, annotations.Request{Permissive: true, TTL: 2*time.Hour + 1}, 0, "",
			[]string{"openshell.ai/permissive-ttl", "at most 2h0m0s", "permissive.max_ttl"}},
		{"forbidden", forbidding, annotations.Request{Permissive: true}, 0, "",
			[]string{"openshell.ai/permissive=true", "permissive.allowed"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ttl, onExpiry, err := tt.node.Resolve(tt.req)
			if (err != nil) != (tt.err != nil) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			for _, part := range tt.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if ttl != tt.ttl || onExpiry != tt.onExpiry {
				t.Errorf("got %s %q, want %s %q", ttl, onExpiry, tt.ttl, tt.onExpiry)
			}
		})
	}
}

// The empty path without a default file is the one case that may be missing; it
// is only tried where the machine has none.
func TestLoadDefaultPath(t *testing.T) {
	t.Setenv(PathVariable, "")
	_, statErr := os.Stat(DefaultPath)
	c, err := Load("")
	want := Default()
	want.file = DefaultPath // where it would be
	if os.IsNotExist(statErr) && (err != nil || !reflect.DeepEqual(c, want)) {
		t.Errorf("got %+v, %v, want the defaults", c, err)
	}
}

func TestTrustedRanges(t *testing.T) {
	for text, want := range map[string]string{
		"10.20.0.0/16": "", "fd12:3456::/32": "", "100.64.0.0/10": "",
		"10.20.0.1/16": "is 10.20.0.0/16 meant?", "10.20.0.1": "is not a range", "x": "is not a range", "::ffff:10.0.0.0/104": "is not a range",
		"127.0.0.0/8": "always blocked", "0.0.0.0/0": "always blocked", "169.254.0.0/16": "always blocked", "::/0": "always blocked",
		"fe80::/10": "always blocked",
	} {
		c, err := Parse([]byte("version: 1\naddresses: {trusted: [\"" + text + "\"]}\n"))
		switch {
		case want == "" && (err != nil || len(c.Addresses.Prefixes()) != 1):
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "addresses.trusted")):
			t.Errorf("%s: %v", text, err)
		}
	}
}
