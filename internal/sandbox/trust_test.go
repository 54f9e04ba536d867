// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/proxy"
	"software.sslmate.com/src/go-pkcs12"
)

// imageBundle makes a root file system with a CA bundle.
func imageBundle(t *testing.T) (dir string, ca *proxy.CA) {
	t.Helper()
	ca, err := proxy.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "etc/ssl/certs"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(string(ca.PEM()), "\n") // as people concatenate them
	if err := os.WriteFile(filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, ca
}

func TestTrustFiles(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // an engine's
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	dir, image := imageBundle(t)
	r.Container.Roots = rootfs.Path{Location: rootfs.At(dir), Path: SystemBundles[0]}
	writeState(t, "runc", r.Container.Root, "c1", newProcess(t).Process.Pid)
	s := start(t, c, r)
	own := s.authority.Certificate()
	store := filepath.Join(s.tlsDir(), TrustStoreFile)
	eventually(t, "the trust store is written", func() bool { return !missing(store)() })

	for _, name := range []string{".", CAFile, BundleFile, TrustStoreFile} {
		info, err := os.Stat(filepath.Join(s.tlsDir(), name))
		if err != nil || info.Mode().Perm()&0o444 != 0o444 || info.IsDir() && info.Mode().Perm() != 0o755 {
			t.Errorf("the workload cannot read %s: %v, %v", name, info, err)
		}
	}
	data, err := os.ReadFile(filepath.Join(s.tlsDir(), BundleFile))
	if err != nil {
		t.Fatal(err)
	}
	var subjects [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, cert.Raw)
	}
	if len(subjects) != 2 || string(subjects[0]) != string(image.Certificate().Raw) || string(subjects[1]) != string(own.Raw) {
		t.Errorf("the bundle has %d certificates", len(subjects))
	}
	if data, err = os.ReadFile(store); err != nil {
		t.Fatal(err)
	}
	certs, err := pkcs12.DecodeTrustStore(data, TrustStorePassword)
	if err != nil || len(certs) != 2 || !certs[0].Equal(own) || !certs[1].Equal(image.Certificate()) {
		t.Errorf("the trust store has %d certificates, %v", len(certs), err)
	}
}

// An image must not be able to hold up or blow up its own start.
func TestHostileBundles(t *testing.T) {
	hosts := systemRoots(rootfs.Path{})
	dir := t.TempDir()
	bundle := filepath.Join(dir, "b")
	for name, make := range map[string]func() error{
		"named pipe": func() error { return unix.Mkfifo(bundle, 0o644) },
		"directory":  func() error { return os.Mkdir(bundle, 0o755) },
		"endless":    func() error { return os.WriteFile(bundle, nil, 0o644) },
		"link away":  func() error { return os.Symlink("../../../../../../../etc/hostname", bundle) },
		"missing":    func() error { return os.Mkdir(bundle, 0o755) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if name == "endless" {
			if err := os.Truncate(bundle, 1<<40); err != nil {
				t.Fatal(err)
			}
		}
		at := rootfs.Path{Location: rootfs.At(dir), Path: "/b"}
		if name == "missing" {
			at.Path = "/c"
		}
		if got := systemRoots(at); string(got) != string(hosts) {
			t.Errorf("%s: %d bytes, the host has %d", name, len(got), len(hosts))
		}
		if err := os.Remove(bundle); err != nil {
			t.Fatal(err)
		}
	}
}
