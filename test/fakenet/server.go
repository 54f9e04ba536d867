// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// WriteCertificate writes a certificate of the test authority for names and addresses, and its
// key, to cert.pem and key.pem in a directory: for servers that a test brings to
// the internet itself, by [Net.DoInternet].
func (n *Net) WriteCertificate(dir string, names ...string) error {
	wanted := leaf{names: names, notAfter: n.ca.cert.NotAfter}
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err == nil {
			wanted.addrs = append(wanted.addrs, addr)
		}
	}
	cert, err := n.ca.issue(wanted)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return fmt.Errorf("write the key of %v: %w", names, err)
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
			return fmt.Errorf("write the certificate of %v: %w", names, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), chain.Bytes(), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}
