// SPDX-License-Identifier: Apache-2.0

package truststore

import (
	"crypto/sha1" //nolint:gosec // the format's
	"crypto/subtle"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"

	"software.sslmate.com/src/go-pkcs12"
)

const (
	// alias is what the CA is called in a store.
	alias = "openshell-sandbox-ca"

	// What a JKS file begins with, and what stands for a trusted certificate in it
	// (JavaKeyStore of the OpenJDK).
	jksMagic    = 0xfeedfeed
	jksVersion1 = 1
	jksVersion2 = 2
	jksHeader   = 12 // magic, version, number of entries
	jksTrusted  = 2
	jksCertType = "X.509"
	jksWhitener = "Mighty Aphrodite"
)

// errJavaPassword says that a store has not the password that cacerts have.
var errJavaPassword = errors.New("a Java trust store with a password of its own")

// AddJava returns a store that has one more certificate, in the format that it had:
// JKS, or PKCS#12, as they are since JDK 18. Where it has a password, that must be
// the one of the JDK's own cacerts. The JVM reads both formats wherever it looks for
// either, and what is PKCS#12 without a password with any.
func AddJava(store []byte, ca *x509.Certificate) ([]byte, error) {
	if len(store) >= jksHeader && binary.BigEndian.Uint32(store) == jksMagic {
		return addJKS(store, ca)
	}
	certificates, err := pkcs12.DecodeTrustStore(store, "")
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		certificates, err = pkcs12.DecodeTrustStore(store, pkcs12.DefaultPassword)
	}
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, errJavaPassword
	}
	if err != nil {
		return nil, fmt.Errorf("neither JKS nor PKCS#12: %w", err)
	}
	entries := []pkcs12.TrustStoreEntry{{Cert: ca, FriendlyName: alias}}
	for i, c := range certificates { // which had names that the library does not tell
		entries = append(entries, pkcs12.TrustStoreEntry{Cert: c, FriendlyName: fmt.Sprintf("image-%d", i)})
	}
	return pkcs12.Passwordless.EncodeTrustStoreEntries(entries, "")
}

// addJKS adds an entry at the end: those before it are passed on unread, behind
// the digest that covers them.
func addJKS(store []byte, ca *x509.Certificate) ([]byte, error) {
	version, count := binary.BigEndian.Uint32(store[4:]), binary.BigEndian.Uint32(store[8:])
	end := len(store) - sha1.Size
	switch {
	case version != jksVersion1 && version != jksVersion2:
		return nil, fmt.Errorf("JKS of version %d", version)
	case end < jksHeader || count == ^uint32(0):
		return nil, errors.New("JKS that is cut off")
	}
	if digest := jksDigest(store[:end]); subtle.ConstantTimeCompare(digest, store[end:]) != 1 {
		return nil, errJavaPassword
	}
	out := slices.Grow(slices.Clone(store[:end]), len(ca.Raw)+128)
	binary.BigEndian.PutUint32(out[8:], count+1)
	out = binary.BigEndian.AppendUint32(out, jksTrusted)
	out = appendJKSString(out, alias)
	out = binary.BigEndian.AppendUint64(out, uint64(ca.NotBefore.UnixMilli()))
	if version == jksVersion2 {
		out = appendJKSString(out, jksCertType)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(ca.Raw)))
	out = append(out, ca.Raw...)
	return append(out, jksDigest(out)...), nil
}

// appendJKSString appends a short ASCII string as java.io.DataOutput does.
func appendJKSString(out []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
}

// jksDigest is a JKS file's proof that who wrote it knew the password.
func jksDigest(content []byte) []byte {
	h := sha1.New() //nolint:gosec // the format's
	for _, unit := range utf16.Encode([]rune(pkcs12.DefaultPassword)) {
		h.Write(binary.BigEndian.AppendUint16(nil, unit))
	}
	h.Write([]byte(jksWhitener))
	h.Write(content)
	return h.Sum(nil)
}
