// SPDX-License-Identifier: Apache-2.0

// Package config reads the node's configuration: what its administrator allows.
//
// It owns the file /etc/openshell/config.yaml, its defaults and its validation,
// and the decision whether a container's request stays within it. It does not
// parse the request (package annotations) nor read what the file points at
// (policies, certificates, credentials).
package config

import (
	"fmt"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v4"

	"openshell.ai/openshell/annotations"
)

// CredentialsDir is where a node's credentials are; nothing of openshell reads them yet.
const CredentialsDir = "/etc/openshell/credentials"

// Config is the node's configuration. Load fills in the defaults, so every field
// of a loaded Config holds the effective value.
type Config struct {
	// Version of the file's format; always 1.
	Version int `yaml:"version"`
	// Runtime is the low-level OCI runtime: a name on PATH or an absolute path.
	Runtime string `yaml:"runtime"`
	// StateDir keeps what outlives a sandbox.
	StateDir string `yaml:"state_dir"`
	// RunDir keeps what goes with a sandbox.
	RunDir string `yaml:"run_dir"`
	// PolicyDir keeps the operator's policies.
	PolicyDir string `yaml:"policy_dir"`
	// DefaultPolicy is a name in PolicyDir; empty means the built-in restrictive default.
	DefaultPolicy string `yaml:"default_policy"`
	// MaximumPolicy is a policy file that no effective policy, no approval and no
	// permissive allowance may exceed; empty means that there is no maximum.
	MaximumPolicy string `yaml:"maximum_policy"`
	// Permissive says whether and how a container may run permissively.
	Permissive Permissive `yaml:"permissive"`
	// PolicyLocal says what a workload may ask of its own sandbox.
	PolicyLocal PolicyLocal `yaml:"policy_local"`
	// TLS says how upstream certificates are verified.
	TLS TLS `yaml:"tls"`
	// DNS says where names are looked up.
	DNS DNS `yaml:"dns"`
	// UpstreamProxy is the site's own HTTP proxy, if there is no other way out.
	UpstreamProxy UpstreamProxy `yaml:"upstream_proxy"`
	// Addresses says which addresses count as public ones.
	Addresses Addresses `yaml:"addresses"`
	// Limits bound what one sandbox may use.
	Limits Limits `yaml:"limits"`
	// Supervisor bounds the process that a sandbox runs in.
	Supervisor Supervisor `yaml:"supervisor"`
	// Identity says whether the connecting process must be known.
	Identity Identity `yaml:"identity"`
	// Seccomp says what is put into a bundle besides openshell's own filter.
	Seccomp Seccomp `yaml:"seccomp"`
	// Confinement says what is let through that is usually refused.
	Confinement Confinement `yaml:"confinement"`
	// Audit says which events are kept, and how long.
	Audit Audit `yaml:"audit"`
	// Metrics says where metrics are served.
	Metrics Metrics `yaml:"metrics"`

	file string
}

// Addresses says which addresses count as public ones.
type Addresses struct {
	// Trusted are the site's own ranges, in CIDR notation.
	Trusted []string `yaml:"trusted"`
}

// Prefixes returns the trusted ranges of a valid configuration.
func (a Addresses) Prefixes() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range a.Trusted {
		if p, err := parseTrusted(s); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// File is the file that the configuration was loaded from; empty where it was
// not.
func (c *Config) File() string { return c.file }

// Permissive says whether and how a container may run permissively.
type Permissive struct {
	// Allowed is the organisation's off switch.
	Allowed bool `yaml:"allowed"`
	// DefaultTTL is how long permissive mode lasts when the container does not say.
	DefaultTTL time.Duration `yaml:"default_ttl"`
	// MaxTTL is the longest time a container may ask for.
	MaxTTL time.Duration `yaml:"max_ttl"`
	// OnExpiry is annotations.OnExpiryEnforce or annotations.OnExpiryStop.
	OnExpiry string `yaml:"on_expiry"`
	// Never lists endpoints for which permissive mode does not hold, each a host
	// or host:port with the wildcards of policies. What they mean, and whether
	// they are valid, is package policy's.
	Never []string `yaml:"never"`
}

// PolicyLocal says what a workload may ask of its own sandbox.
type PolicyLocal struct {
	// Enabled lets the workload read its policy and its denials at
	// http://policy.local/, and propose rules there for people to review.
	Enabled bool `yaml:"enabled"`
}

// TLS says how upstream certificates are verified.
type TLS struct {
	// ExtraRoots are PEM files of CAs that upstream certificates may also chain to.
	ExtraRoots []string `yaml:"extra_roots"`
}

// DNS says where names are looked up.
type DNS struct {
	// Upstream are addresses, with or without a port; empty means the
	// container's resolv.conf, else the host's.
	Upstream []string `yaml:"upstream"`
}

// UpstreamProxy is an HTTP proxy that every TCP connection to the outside goes through.
type UpstreamProxy struct {
	// URL is http://host:port or https://host:port; empty means that there is none.
	URL string `yaml:"url"`
	// CredentialsFile has user:password, on one line; empty means that none is asked for.
	CredentialsFile string `yaml:"credentials_file"`
	// CA is a PEM file of the CAs that the proxy's own certificate chains to; empty means the host's.
	CA string `yaml:"ca"`
	// NoProxy lists what is reached directly: names, which stand for those below them
	// too, addresses, and ranges of them in CIDR notation; a name or an address may have a port.
	NoProxy []string `yaml:"no_proxy"`
}

// Limits bound what one sandbox may use.
type Limits struct {
	// Connections is the number of connections open at a time.
	Connections int `yaml:"connections"`
	// IdleTimeout is how long a connection of any kind may carry nothing.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// HeaderBytes is the size of an HTTP message's head in bytes.
	HeaderBytes int `yaml:"header_bytes"`
}

// Supervisor bounds the process that a sandbox runs in.
type Supervisor struct {
	// Memory is what it works within. A shim with several sandboxes has as much for
	// each.
	Memory Size `yaml:"memory"`
}

// Identity says whether the connecting process must be known.
type Identity struct {
	// Required refuses connections whose process cannot be told; always true, see Load.
	Required bool `yaml:"required"`
}

// Seccomp says what is put into a bundle besides openshell's own filter.
type Seccomp struct {
	// DefaultProfile adds containerd's default profile where a bundle has none.
	DefaultProfile bool `yaml:"default_profile"`
}

// Confinement says what is let through that is usually refused.
type Confinement struct {
	// NestedSandboxes lets user namespaces through, and mounts in them, for workloads
	// that bring sandboxes of their own. Landlock, under which nobody mounts, is then applied
	// only for policies that insist on it.
	NestedSandboxes bool `yaml:"nested_sandboxes"`
}

// Audit says which events are kept, and how long.
type Audit struct {
	// OCSF writes events.jsonl besides the log for people.
	OCSF bool `yaml:"ocsf"`
	// KeepDays is how many days events are kept.
	KeepDays int `yaml:"keep_days"`
}

// Metrics says where metrics are served.
type Metrics struct {
	// Listen is host:port; always empty, see Load.
	Listen string `yaml:"listen"`
}

// Default returns the configuration of a node without a configuration file.
func Default() *Config {
	return &Config{
		Version:   1,
		Runtime:   "runc",
		StateDir:  "/var/lib/openshell",
		RunDir:    "/run/openshell",
		PolicyDir: "/etc/openshell/policies",
		Permissive: Permissive{
			Allowed:    true,
			DefaultTTL: time.Hour,
			MaxTTL:     24 * time.Hour,
			OnExpiry:   annotations.OnExpiryEnforce,
			Never:      []string{},
		},
		PolicyLocal:   PolicyLocal{Enabled: true},
		TLS:           TLS{ExtraRoots: []string{}},
		UpstreamProxy: UpstreamProxy{NoProxy: []string{}},
		Addresses:     Addresses{Trusted: []string{}},
		DNS:           DNS{Upstream: []string{}},
		Limits:        Limits{Connections: 4096, IdleTimeout: 5 * time.Minute, HeaderBytes: 65536},
		Supervisor:    Supervisor{Memory: 256 << 20},
		Identity:      Identity{Required: true},
		Seccomp:       Seccomp{DefaultProfile: true},
		Audit:         Audit{OCSF: true, KeepDays: 7},
	}
}

// Marshal returns the effective configuration as YAML that Parse accepts.
func (c *Config) Marshal() ([]byte, error) {
	data, err := yaml.Dump(c)
	if err != nil {
		return nil, fmt.Errorf("marshal configuration: %w", err)
	}
	return data, nil
}

// Resolve applies the node's limits to what a container asks for. It returns how
// long permissive mode may last and what happens then: zero and empty for a
// container that runs enforcing. The error names the annotation and the field of
// the configuration that forbids it.
func (c *Config) Resolve(req annotations.Request) (ttl time.Duration, onExpiry string, err error) {
	if !req.Permissive {
		return 0, "", nil
	}
	if !c.Permissive.Allowed {
		return 0, "", fmt.Errorf("annotation %s=true: this node forbids it (permissive.allowed is false in its configuration)",
			annotations.KeyPermissive)
	}
	ttl, onExpiry = c.Permissive.DefaultTTL, c.Permissive.OnExpiry
	if req.TTL != 0 {
		ttl = req.TTL
	}
	if ttl > c.Permissive.MaxTTL {
		return 0, "", fmt.Errorf("annotation %s=%s: this node allows at most %s (permissive.max_ttl in its configuration)",
			annotations.KeyPermissiveTTL, ttl, c.Permissive.MaxTTL)
	}
	if req.OnExpiry != "" {
		onExpiry = req.OnExpiry
	}
	return ttl, onExpiry, nil
}
