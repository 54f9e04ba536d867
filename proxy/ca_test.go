// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto/x509"
	"testing"
)

// The CA of a supervisor that takes over is the one that the workload trusts.
func TestCATakenOver(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ca.Secret()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadCA(secret)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := again.Leaf("h.example")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "h.example"}); err != nil {
		t.Error(err)
	}
	for _, cut := range []int{0, len(secret) / 2, len(secret) - 10} {
		if _, err := ReadCA(secret[:cut]); err == nil {
			t.Errorf("%d of %d bytes are a CA", cut, len(secret))
		}
	}
}
