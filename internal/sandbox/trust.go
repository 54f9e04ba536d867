// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/state"
	"openshell.ai/openshell/proxy"
	"software.sslmate.com/src/go-pkcs12"
)

// The files of the sandbox's CA, as the workload finds them.
const (
	CAFile         = "openshell-ca.pem"
	BundleFile     = "ca-bundle.pem"
	TrustStoreFile = "truststore.p12"
	// TrustStorePassword is what Java's own trust stores have.
	TrustStorePassword = pkcs12.DefaultPassword
)

// SystemBundles are where distributions keep their roots: Debian, Fedora and
// RHEL (the second is the first's target), openSUSE, Alpine and BSDs.
var SystemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// makeAuthority makes the sandbox's CA and writes the files that make the
// workload trust it: always beside the roots that it trusted before.
func (s *Sandbox) makeAuthority() (err error) {
	s.authority, err = proxy.NewCA()
	if err != nil {
		return err
	}
	own := s.authority.PEM()
	s.roots = systemRoots(s.request.Container.Roots)
	if len(s.roots) > 0 && !bytes.HasSuffix(s.roots, []byte("\n")) {
		s.roots = append(s.roots, '\n')
	}
	for name, data := range map[string][]byte{CAFile: own, BundleFile: slices.Concat(s.roots, own)} {
		if err := state.ReplaceFile(filepath.Join(s.tlsDir(), name), data, 0o644); err != nil {
			return fmt.Errorf("write CA: %w", err)
		}
	}
	return nil
}

// writeTrustStore writes the bundle for Java, once there is a container. It need
// not wait for it: a virtual machine takes longer to start.
func (s *Sandbox) writeTrustStore() {
	data, err := trustStore(s.roots, s.authority.Certificate())
	if err == nil {
		err = state.ReplaceFile(filepath.Join(s.tlsDir(), TrustStoreFile), data, 0o644)
	}
	if err != nil {
		s.recordError("the Java trust store could not be written", err)
	}
}

// MaxBundle bounds what is read of an image's CA bundle, in bytes. Mozilla's has
// 220 KB.
const MaxBundle = 8 << 20

// systemRoots reads a container's bundle, or the host's where it has none.
func systemRoots(own rootfs.Path) []byte {
	if !own.Location.IsZero() {
		if data, err := own.Read(MaxBundle); err == nil {
			return data
		}
	}
	for _, path := range SystemBundles {
		if data, err := (rootfs.Path{Location: rootfs.At(path), Path: "/"}).Read(MaxBundle); err == nil {
			return data
		}
	}
	return nil
}

// trustStore makes the PKCS#12 file of a bundle and the sandbox's own CA. The
// certificates are passed on unread: parsing a hundred of them takes longer
// than starting a container.
func trustStore(bundle []byte, own *x509.Certificate) ([]byte, error) {
	entries := []pkcs12.TrustStoreEntry{{Cert: own, FriendlyName: "openshell"}}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		entries = append(entries, pkcs12.TrustStoreEntry{
			Cert:         &x509.Certificate{Raw: block.Bytes},
			FriendlyName: fmt.Sprintf("root-%d", len(entries)),
		})
	}
	return pkcs12.Modern2023.EncodeTrustStoreEntries(entries, TrustStorePassword)
}

// trustedUpstream returns what upstream certificates must chain to: the host's
// roots and the node's extra ones. The latter are checked now; the former are
// parsed when the first certificate is to be verified, because parsing them
// takes longer than all else that a sandbox does at its start.
func (s *Sandbox) trustedUpstream() (func() *x509.CertPool, error) {
	var extra [][]byte
	for _, file := range s.config.TLS.ExtraRoots {
		data, err := safefile.Read(file, MaxBundle)
		if err != nil {
			return nil, fmt.Errorf("tls.extra_roots: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("tls.extra_roots: %s holds no certificate in PEM", file)
		}
		extra = append(extra, data)
	}
	return sync.OnceValue(func() *x509.CertPool {
		pool, err := x509.SystemCertPool()
		if err != nil {
			s.recordError("the host's CA certificates could not be read", err)
			pool = x509.NewCertPool()
		}
		for _, data := range extra {
			pool.AppendCertsFromPEM(data)
		}
		return pool
	}), nil
}
