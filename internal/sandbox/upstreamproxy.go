// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/proxy/chain"
)

// maxCredentials bounds the file with the user and password of the site's proxy, in bytes.
const maxCredentials = 4096

// UpstreamProxy returns the site's proxy, or nil where there is none. Whoever uses it sets Dial. Its
// name is looked up as the node's own programs do: what a container has for it might be anybody's, who would get the
// password.
func UpstreamProxy(c config.UpstreamProxy) (*chain.Proxy, error) {
	if c.URL == "" {
		return nil, nil
	}
	to := chain.Config{URL: c.URL, NoProxy: c.NoProxy, Resolve: resolveOnNode}
	if c.CA != "" {
		data, err := safefile.Read(c.CA, MaxBundle)
		if err != nil {
			return nil, fmt.Errorf("upstream_proxy.ca: %w", err)
		}
		to.Roots = x509.NewCertPool()
		if !to.Roots.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("upstream_proxy.ca: %s holds no certificate in PEM", c.CA)
		}
	}
	if c.CredentialsFile != "" {
		to.Authorization = func() (string, error) {
			value, err := readCredentials(c.CredentialsFile)
			if err != nil {
				return "", fmt.Errorf("upstream_proxy.credentials_file: %w", err)
			}
			return value, nil
		}
		if _, err := to.Authorization(); err != nil {
			return nil, err
		}
	}
	return chain.New(to)
}

func resolveOnNode(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// readCredentials reads user:password and returns the value of Proxy-Authorization (RFC 7617). No error repeats
// what is in the file.
func readCredentials(file string) (string, error) {
	data, err := safefile.Read(file, maxCredentials)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return "", err
	case info.Mode().Perm()&0o007 != 0:
		return "", fmt.Errorf("%s has mode %04o, so that everybody can read it: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	return basic(string(data))
}

func basic(text string) (string, error) {
	text = strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	user, _, found := strings.Cut(text, ":")
	if !found || user == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("want one line with user:password")
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)), nil
}
