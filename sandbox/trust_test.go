package sandbox

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/proxy"
	"software.sslmate.com/src/go-pkcs12"
)

// imageBundle makes a root file system with a CA bundle.
func imageBundle(t *testing.T) (rootfs string, ca *proxy.CA) {
	t.Helper()
	ca, err := proxy.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	rootfs = t.TempDir()
	if err := os.MkdirAll(filepath.Join(rootfs, "etc/ssl/certs"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(string(ca.PEM()), "\n") // as people concatenate them
	if err := os.WriteFile(filepath.Join(rootfs, "etc/ssl/certs/ca-certificates.crt"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return rootfs, ca
}

func TestTrustFiles(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077)) // an engine's
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	rootfs, image := imageBundle(t)
	r.Rootfs = rootfs
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
	hosts := systemRoots("")
	rootfs := t.TempDir()
	certs := filepath.Join(rootfs, "etc/ssl/certs")
	if err := os.MkdirAll(certs, 0o755); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(certs, "ca-certificates.crt")
	for name, make := range map[string]func() error{
		"named pipe": func() error { return unix.Mkfifo(bundle, 0o644) },
		"directory":  func() error { return os.Mkdir(bundle, 0o755) },
		"endless":    func() error { return os.WriteFile(bundle, nil, 0o644) },
		"link away":  func() error { return os.Symlink("../../../../../../../etc/hostname", bundle) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if name == "endless" {
			if err := os.Truncate(bundle, 1<<40); err != nil {
				t.Fatal(err)
			}
		}
		if got := systemRoots(rootfs); string(got) != string(hosts) {
			t.Errorf("%s: %d bytes, the host has %d", name, len(got), len(hosts))
		}
		if err := os.Remove(bundle); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadImageFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadImageFile(file, 5); err != nil || string(data) != "12345" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := ReadImageFile(file, 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Errorf("too long: %v", err)
	}
	if err := os.Symlink(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadImageFile(file+"2", 5); err == nil {
		t.Error("a link is followed")
	}
}
