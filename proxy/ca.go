// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

const (
	// caLifetime outlasts any sandbox.
	caLifetime = 10 * 365 * 24 * time.Hour
	// leafLifetime stays below the 398 days that clients accept at most.
	leafLifetime = 30 * 24 * time.Hour
	// clockSkew is how far behind a workload's clock may be.
	clockSkew = 24 * time.Hour
	maxLeaves = 1024
)

// CA is one sandbox's certificate authority. Its key is in memory only and
// dies with the sandbox. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	// One key for every leaf: making a key costs more than signing with one,
	// and all leaves belong to this process anyway.
	leafKey crypto.Signer

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// NewCA makes a certificate authority.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make sandbox CA: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make sandbox CA: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "OpenShell Sandbox CA", Organization: []string{"OpenShell"}},
		NotBefore:             time.Now().Add(-clockSkew),
		NotAfter:              time.Now().Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make sandbox CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make sandbox CA: %w", err)
	}
	return &CA{cert: cert, key: key, leafKey: leafKey, leaves: make(map[string]*tls.Certificate)}, nil
}

// Secret returns the CA with its keys, in PEM. It is for nobody but the process
// that takes over the sandbox.
func (c *CA) Secret() ([]byte, error) {
	secret := c.PEM()
	for _, key := range []crypto.Signer{c.key, c.leafKey} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("pass on sandbox CA: %w", err)
		}
		secret = append(secret, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	return secret, nil
}

// ReadCA returns the CA that a Secret is of.
func ReadCA(secret []byte) (*CA, error) {
	c := &CA{leaves: make(map[string]*tls.Certificate)}
	var keys []crypto.Signer
	for block, rest := pem.Decode(secret); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("take over sandbox CA: %w", err)
			}
			c.cert = cert
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		signer, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return nil, fmt.Errorf("take over sandbox CA: a key cannot be read: %w", err)
		}
		keys = append(keys, signer)
	}
	if c.cert == nil || len(keys) != 2 {
		return nil, errors.New("take over sandbox CA: it is not complete")
	}
	c.key, c.leafKey = keys[0], keys[1]
	return c, nil
}

// Certificate returns the CA's own certificate.
func (c *CA) Certificate() *x509.Certificate { return c.cert }

// PEM returns the CA's own certificate in PEM.
func (c *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})
}

// Leaf returns a certificate for a DNS name or IP address. The same one is
// used again: browsers refuse a second certificate with the first's serial.
func (c *CA) Leaf(host string) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if leaf, ok := c.leaves[host]; ok && time.Until(leaf.Leaf.NotAfter) > leafLifetime/2 {
		return leaf, nil
	}
	leaf, err := c.sign(host)
	if err != nil {
		return nil, fmt.Errorf("make certificate for %s: %w", host, err)
	}
	if len(c.leaves) >= maxLeaves {
		clear(c.leaves)
	}
	c.leaves[host] = leaf
	return leaf, nil
}

func (c *CA) sign(host string) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    time.Now().Add(-clockSkew),
		NotAfter:     time.Now().Add(leafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	if len(host) <= 64 { // ub-common-name, RFC 5280 appendix A
		template.Subject.CommonName = host
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, c.leafKey.Public(), c.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, c.cert.Raw}, PrivateKey: c.leafKey, Leaf: leaf}, nil
}

// serial returns a random serial number of 126 bits; RFC 5280 section 4.1.2.2
// wants it positive and at most 20 octets.
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil { // crypto/rand does not fail on Linux
		panic(err)
	}
	return n
}
