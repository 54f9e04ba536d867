// SPDX-License-Identifier: Apache-2.0

// Package truststore owns the formats in which programs keep the CAs that they
// trust: it adds one to a store and keeps what is in it. The stores are an image's,
// so that nothing is assumed of what they hold. Where they are, and who reads
// them, is others' business.
package truststore

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
)

// A Kind is a format.
type Kind string

const (
	PEM      Kind = "pem"      // a file of certificates
	Java     Kind = "java"     // a file that the JDK's KeyStore reads: JKS or PKCS#12
	Chromium Kind = "chromium" // a directory of managed policies
	Firefox  Kind = "firefox"  // a policies.json
)

// IsDir reports whether a store is a directory.
func (k Kind) IsDir() bool { return k == Chromium || k == Firefox }

// IsPEM reports whether a file is a bundle: certificates, and nothing else that has a
// name.
func IsPEM(file []byte) bool {
	certificates := false
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			return false
		}
		certificates = true
	}
	return certificates
}

// AddPEM returns a bundle that has one more certificate.
func AddPEM(bundle []byte, ca *x509.Certificate) []byte {
	out := slices.Clone(bundle)
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) { // as people concatenate them
		out = append(out, '\n')
	}
	return append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})...)
}
