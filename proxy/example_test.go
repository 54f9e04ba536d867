// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"crypto/x509"
	"fmt"

	"openshell.ai/openshell/proxy"
)

// Each sandbox has an authority of its own, whose key stays in memory. The proxy shows the workload a leaf of the
// host that it asked for.
func ExampleNewCA() {
	ca, err := proxy.NewCA()
	if err != nil {
		fmt.Println(err)
		return
	}
	leaf, err := ca.Leaf("api.example.com")
	if err != nil {
		fmt.Println(err)
		return
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate())
	_, err = leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "api.example.com"})
	fmt.Println(err)
	// Output: <nil>
}
