// SPDX-License-Identifier: Apache-2.0

package truststore

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

func newCA(t testing.TB) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "sandbox"}, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(5e9, 0),
		IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAddPEM(t *testing.T) {
	ca := newCA(t)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
	for before, want := range map[string]string{"": text, "# roots\n": "# roots\n" + text, "x": "x\n" + text} {
		if got := string(AddPEM([]byte(before), ca)); got != want {
			t.Errorf("%q: %q", before, got)
		}
	}
}

func TestIsPEM(t *testing.T) {
	text := string(AddPEM([]byte("# Some CA\n"), newCA(t)))
	for file, want := range map[string]bool{
		text: true, text + text: true, "": false, "root:x:0:0::/root:/bin/sh\n": false,
		text + "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n": false,
	} {
		if got := IsPEM([]byte(file)); got != want {
			t.Errorf("%q: %v", file, got)
		}
	}
}

// jksEntries reads the certificates of a JKS file, by alias.
func jksEntries(t testing.TB, store []byte) map[string]string {
	t.Helper()
	entries := map[string]string{}
	rest := store[jksHeader:]
	next := func(n int) []byte {
		if n > len(rest) {
			t.Fatalf("cut off: %x", store)
		}
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	text := func() string { return string(next(int(binary.BigEndian.Uint16(next(2))))) }
	for range binary.BigEndian.Uint32(store[8:]) {
		if tag := binary.BigEndian.Uint32(next(4)); tag != jksTrusted {
			t.Fatalf("an entry of kind %d", tag)
		}
		name := text()
		next(8)
		if kind := text(); kind != jksCertType {
			t.Fatalf("a certificate of type %q", kind)
		}
		entries[name] = string(next(int(binary.BigEndian.Uint32(next(4)))))
	}
	if len(rest) != 20 {
		t.Errorf("%d bytes of digest", len(rest))
	}
	return entries
}

func TestAddJava(t *testing.T) {
	ca := newCA(t)
	added, err := AddJava(read(t, "cacerts.jks"), ca)
	if err != nil {
		t.Fatal(err)
	}
	entries := jksEntries(t, added)
	if entries[alias] != string(ca.Raw) || entries["image"] == "" || len(entries) != 2 {
		t.Errorf("JKS: %q", slices.Collect(maps.Keys(entries)))
	}
	if again, err := AddJava(read(t, "cacerts.jks"), ca); err != nil || !bytes.Equal(again, added) {
		t.Errorf("not the same again: %v", err) // containers with equal stores share them
	}
	for _, name := range []string{"cacerts.p12", "changeit.p12"} {
		added, err = AddJava(read(t, name), ca)
		if err != nil {
			t.Fatal(err)
		}
		certificates, err := pkcs12.DecodeTrustStore(added, "")
		if err != nil || len(certificates) != 2 || !certificates[0].Equal(ca) || string(certificates[1].Raw) != entries["image"] {
			t.Errorf("%s: %d certificates, %v", name, len(certificates), err)
		}
	}
	for name, store := range map[string][]byte{
		"JKS with a password": read(t, "password.jks"), "PKCS#12 with a password": read(t, "password.p12"), "nothing": nil,
		"a short file": read(t, "cacerts.jks")[:20], "a cut file": read(t, "cacerts.jks")[:100], "text": []byte("-----BEGIN CERTIFICATE-----"),
	} {
		if out, err := AddJava(store, ca); err == nil {
			t.Errorf("%s: %d bytes", name, len(out))
		}
	}
}

// The JDK that the machine has reads what was made.
func TestKeytoolReadsIt(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("the machine has no keytool")
	}
	ca := newCA(t)
	for _, name := range []string{"cacerts.jks", "cacerts.p12", "changeit.p12"} {
		added, err := AddJava(read(t, name), ca)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, added, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(keytool, "-J-Duser.language=en", "-list", "-keystore", file, "-storepass", pkcs12.DefaultPassword).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "contains 2 entries") || !strings.Contains(string(out), alias) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

func TestAddChromium(t *testing.T) {
	ca := newCA(t)
	own := base64.StdEncoding.EncodeToString(ca.Raw)
	for _, tt := range []struct {
		name        string
		files, want map[string]string
	}{
		{"none", nil, map[string]string{ChromiumFile: `{"CACertificates":["` + own + `"]}`}},
		{"another", map[string]string{"a.json": `{"HomepageLocation":"x"}`, "b.json": "{,"},
			map[string]string{"a.json": `{"HomepageLocation":"x"}`, "b.json": "{,", ChromiumFile: `{"CACertificates":["` + own + `"]}`}},
		{"the same", map[string]string{"a.json": "\ufeff{\"CACertificates\":[\"AA==\"],\"N\":12345678901234567890}"},
			map[string]string{"a.json": `{"CACertificates":["AA==","` + own + `"],"N":12345678901234567890}`}},
		{"not a list", map[string]string{"a.json": `{"CACertificates":"AA=="}`}, nil},
	} {
		files := map[string][]byte{}
		for name, text := range tt.files {
			files[name] = []byte(text)
		}
		added, err := AddChromium(files, ca)
		got := map[string]string{}
		for name, data := range added {
			got[name] = string(data)
		}
		if (err == nil) != (tt.want != nil) || err == nil && !maps.Equal(got, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

func TestAddFirefox(t *testing.T) {
	for file, want := range map[string]string{
		"":                                    `{"policies":{"Certificates":{"Install":["/ca"]}}}`,
		" \n":                                 `{"policies":{"Certificates":{"Install":["/ca"]}}}`,
		`{"x":1,"policies":{"a":{"b":true}}}`: `{"policies":{"Certificates":{"Install":["/ca"]},"a":{"b":true}},"x":1}`,
		`{"policies":{"Certificates":null}}`:  `{"policies":{"Certificates":{"Install":["/ca"]}}}`,
		`{"policies":{"Certificates":{"Install":["own.pem"],"ImportEnterpriseRoots":true}}}`: `{"policies":{"Certificates":{"ImportEnterpriseRoots":true,"Install":["own.pem","/ca"]}}}`,
		`[]`: "", `null`: "", `{"policies":[]}`: "", `{"policies":{"Certificates":1}}`: "", `{`: "", `{} {}`: "",
		`{"policies":{"Certificates":{"Install":"own.pem"}}}`: "",
	} {
		if got, err := AddFirefox([]byte(file), "/ca"); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", file, got, err)
		}
	}
}

// A store of an image's ends as a store with all that it had and one more, or as an
// error.
func FuzzStores(f *testing.F) {
	ca := newCA(f)
	for _, name := range []string{"cacerts.jks", "cacerts.p12", "changeit.p12", "password.jks", "password.p12"} {
		f.Add(read(f, name))
	}
	f.Add([]byte(`{"policies":{"Certificates":{"Install":["a"]}},"CACertificates":["AA=="]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if out, err := AddJava(data, ca); err == nil && !bytes.Contains(out, ca.Raw) {
			t.Errorf("a Java store without the CA: %x", out)
		}
		if out, err := AddFirefox(data, "/ca"); err == nil {
			var document struct {
				Policies struct{ Certificates struct{ Install []any } } `json:"policies"`
			}
			if err := json.Unmarshal(out, &document); err != nil {
				t.Errorf("%s: %v", out, err)
			}
			if install := document.Policies.Certificates.Install; len(install) == 0 || fmt.Sprint(install[len(install)-1]) != "/ca" {
				t.Errorf("policies.json without the CA: %s", out)
			}
		}
		files := map[string][]byte{"a.json": data}
		out, err := AddChromium(files, ca)
		if err == nil && !bytes.Contains(slices.Concat(slices.Collect(maps.Values(out))...), []byte(base64.StdEncoding.EncodeToString(ca.Raw))) {
			t.Errorf("policies without the CA: %q", out)
		}
		if !bytes.Equal(files["a.json"], data) || len(files) != 1 {
			t.Error("the image's files were changed")
		}
	})
}

func BenchmarkAddJava(b *testing.B) {
	store, err := os.ReadFile("/etc/ssl/certs/java/cacerts")
	if err != nil {
		b.Skip("the machine has no JDK")
	}
	ca := newCA(b)
	for b.Loop() {
		if _, err := AddJava(store, ca); err != nil {
			b.Fatal(err)
		}
	}
}
