// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"
)

// nodeConfig is the part of openshell's node configuration that leads a sandbox
// into this internet.
type nodeConfig struct {
	Version   int       `yaml:"version"`
	StateDir  string    `yaml:"state_dir"`
	RunDir    string    `yaml:"run_dir"`
	PolicyDir string    `yaml:"policy_dir"`
	TLS       tlsConfig `yaml:"tls"`
	DNS       dnsConfig `yaml:"dns"`
}

type tlsConfig struct {
	ExtraRoots []string `yaml:"extra_roots"`
}

type dnsConfig struct {
	Upstream []string `yaml:"upstream"`
}

// WriteConfig writes a node configuration to path: the test authority as a root,
// the fake name server as upstream, and state, run and policy directories that
// are this Net's own and go with it.
func (n *Net) WriteConfig(path string) error {
	config := nodeConfig{
		Version: 1,
		// Short names, for the same reason as scratchPattern's.
		StateDir:  filepath.Join(n.dir.path, "s"),
		RunDir:    filepath.Join(n.dir.path, "r"),
		PolicyDir: filepath.Join(n.dir.path, "p"),
		TLS:       tlsConfig{ExtraRoots: []string{n.CACert()}},
		DNS:       dnsConfig{Upstream: []string{n.DNS().String()}},
	}
	for _, dir := range []string{config.StateDir, config.RunDir, config.PolicyDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a directory of the node configuration: %w", err)
		}
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("write the node configuration: %w", err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return fmt.Errorf("write the node configuration: %w", err)
	}
	return nil
}

// Dir is the Net's own temporary directory, removed by [Net.Close].
func (n *Net) Dir() string { return n.dir.path }

// Env describes the Net to a process that is started in it, as KEY=VALUE:
//
//	FAKENET_CA      [Net.CACert]
//	FAKENET_OUTER   [Net.Outer]
//	FAKENET_DNS     [Net.DNS]
//	FAKENET_DIR     [Net.Dir]
//	FAKENET_ADDR_X  the addresses of host X (upper case, "_" for other
//	                characters), separated by spaces, for each of [Hosts]
func (n *Net) Env() []string {
	env := []string{
		"FAKENET_CA=" + n.CACert(),
		"FAKENET_OUTER=" + n.Outer(),
		"FAKENET_DNS=" + n.DNS().String(),
		"FAKENET_DIR=" + n.Dir(),
	}
	for _, host := range Hosts() {
		var literals []string
		for _, addr := range Addrs(host) {
			literals = append(literals, addr.String())
		}
		env = append(env, "FAKENET_ADDR_"+envName(host)+"="+strings.Join(literals, " "))
	}
	return env
}

func envName(host string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == '-' {
			return '_'
		}
		return r
	}, strings.ToUpper(host))
}
