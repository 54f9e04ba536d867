package sandbox

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cyphar/filepath-securejoin"
	"openshell.ai/openshell/proxy"
	"openshell.ai/openshell/state"
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
	bundle := systemRoots(s.request.Rootfs)
	if len(bundle) > 0 && !bytes.HasSuffix(bundle, []byte("\n")) {
		bundle = append(bundle, '\n')
	}
	if err := os.WriteFile(filepath.Join(s.tlsDir(), CAFile), own, 0o644); err != nil {
		return fmt.Errorf("write CA: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.tlsDir(), BundleFile), append(bundle, own...), 0o644); err != nil {
		return fmt.Errorf("write CA bundle: %w", err)
	}
	s.wg.Go(func() {
		if err := writeTrustStore(filepath.Join(s.tlsDir(), TrustStoreFile), bundle, s.authority.Certificate()); err != nil {
			s.recordError("the Java trust store could not be written", err)
		}
	})
	return nil
}

// systemRoots reads the image's bundle, or the host's where it has none.
func systemRoots(rootfs string) []byte {
	for _, root := range []string{rootfs, "/"} {
		if root == "" {
			continue
		}
		for _, path := range SystemBundles {
			full, err := securejoin.SecureJoin(root, path)
			if err != nil {
				continue
			}
			if data, err := os.ReadFile(full); err == nil {
				return data
			}
		}
	}
	return nil
}

// writeTrustStore writes the bundle for Java, which reads no PEM. The
// certificates are passed on unread: parsing a hundred of them takes longer
// than starting a container.
func writeTrustStore(path string, bundle []byte, own *x509.Certificate) error {
	entries := []pkcs12.TrustStoreEntry{{Cert: own, FriendlyName: "openshell"}}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		entries = append(entries, pkcs12.TrustStoreEntry{
			Cert:         &x509.Certificate{Raw: block.Bytes},
			FriendlyName: fmt.Sprintf("root-%d", len(entries)),
		})
	}
	data, err := pkcs12.Modern2023.EncodeTrustStoreEntries(entries, TrustStorePassword)
	if err != nil {
		return err
	}
	return state.ReplaceFile(path, data, 0o644)
}

// roots returns what upstream certificates must chain to: the host's roots and
// the node's extra ones.
func (s *Sandbox) roots() (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range s.config.TLS.ExtraRoots {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("tls.extra_roots: %w", err)
		}
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("tls.extra_roots: %s holds no certificate in PEM", file)
		}
	}
	return pool, nil
}
