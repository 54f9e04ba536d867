// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"

	"openshell.ai/openshell/internal/audit"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/truststore"
	"openshell.ai/openshell/proxy"
)

const (
	// TrustDir is where the workload finds the sandbox's CA.
	TrustDir = "/etc/openshell-tls"
	// ReadOnlyTrustDir is TrustDir where the root file system lacks that directory
	// and cannot be written to.
	ReadOnlyTrustDir = confine.Dir + "/" + trustMountPoint
	trustMountPoint  = "tls"

	// The files there: the CA alone, and with the roots that the workload trusted
	// before.
	CAFile     = "openshell-ca.pem"
	BundleFile = "ca-bundle.pem"
)

// TrustStore is a place in a container where programs look for CAs.
type TrustStore struct {
	Kind truststore.Kind `json:"kind"`
	// Target is what is to be covered, a path in the container without links. It
	// is a directory for browsers' policies, a file for all else.
	Target string `json:"target"`
	// Source is what the image has: the zero value where that is nothing.
	Source rootfs.Path `json:"source,omitzero"`
}

// Cover says what is to be mounted over a trust store.
type Cover struct {
	Source string `json:"source"` // on the host
	Target string `json:"target"` // in the container
}

// trust is what a container's bundle needs to know of the sandbox's CA.
type trust struct {
	dir    string // on the host, for TrustDir
	covers []Cover
	// uncovered says of each store why it is left alone: its programs do not
	// accept the sandbox's CA.
	uncovered []string
}

// MaxBundle bounds what is read of an image's trust store, in bytes. Mozilla's
// roots have 220 KB.
const MaxBundle = 8 << 20

// makeAuthority makes the sandbox's CA, and its files for the first container.
func (s *Sandbox) makeAuthority() (err error) {
	if s.authority, err = proxy.NewCA(); err != nil {
		return err
	}
	s.trust, err = s.makeTrust(s.request.Stores)
	return err
}

// makeTrust makes the files that make a container's programs trust the CA, always
// beside what they trusted before. Containers with equal ones share them.
func (s *Sandbox) makeTrust(stores []TrustStore) (t trust, err error) {
	files, t, err := trustFiles(stores, s.authority.Certificate())
	if err != nil {
		return trust{}, err
	}
	t.dir = filepath.Join(s.tlsDir(), digestOf(files))
	for i := range t.covers {
		t.covers[i].Source = filepath.Join(t.dir, t.covers[i].Source)
	}
	if _, err := os.Lstat(t.dir); err == nil {
		return t, nil
	}
	if err := writeTree(t.dir, files); err != nil {
		return trust{}, fmt.Errorf("write CA: %w", err)
	}
	return t, nil
}

// trustFiles returns what goes into a container's directory, by name. The sources
// of the covers are names, too.
func trustFiles(stores []TrustStore, ca *x509.Certificate) (files map[string][]byte, t trust, err error) {
	files = map[string][]byte{CAFile: truststore.AddPEM(nil, ca)}
	for i, store := range stores {
		name, added := "", map[string][]byte{}
		switch store.Kind {
		case truststore.PEM:
			name, err = addBundle(files, store, i, ca)
		case truststore.Java:
			name = fmt.Sprintf("cacerts-%d", i)
			added[name], err = readAnd(store, func(own []byte) ([]byte, error) { return truststore.AddJava(own, ca) })
		case truststore.Chromium:
			name = fmt.Sprintf("chromium-%d", i)
			err = addChromium(added, name, store, ca)
		case truststore.Firefox:
			name = fmt.Sprintf("firefox-%d", i)
			added[path.Join(name, CAFile)] = files[CAFile]
			added[path.Join(name, firefoxFile)], err = readAnd(store, func(own []byte) ([]byte, error) {
				return truststore.AddFirefox(own, path.Join(store.Target, CAFile))
			})
		}
		switch {
		case err != nil && store.Kind == truststore.PEM:
			return nil, trust{}, fmt.Errorf("CA bundle %s of the container: %w", store.Target, err)
		case err != nil:
			t.uncovered = append(t.uncovered, fmt.Sprintf("%s: %v", store.Target, err))
			continue
		}
		maps.Copy(files, added)
		t.covers = append(t.covers, Cover{Source: name, Target: store.Target})
	}
	if files[BundleFile] == nil {
		files[BundleFile] = truststore.AddPEM(hostRoots(), ca)
	}
	return files, t, nil
}

// addBundle adds what covers a bundle of the image's to a container's files. The
// first is what clients are pointed at.
func addBundle(files map[string][]byte, store TrustStore, i int, ca *x509.Certificate) (name string, err error) {
	own, err := store.Source.Read(MaxBundle)
	if err != nil {
		return "", err
	}
	name, data := BundleFile, truststore.AddPEM(own, ca)
	if first, ok := files[BundleFile]; ok && !slices.Equal(first, data) {
		name = fmt.Sprintf("ca-bundle-%d.pem", i)
	}
	files[name] = data
	return name, nil
}

// readAnd makes a file of the image's, which may have none.
func readAnd(store TrustStore, change func(own []byte) ([]byte, error)) ([]byte, error) {
	if store.Source.Location.IsZero() {
		return change(nil)
	}
	own, err := store.Source.Read(MaxBundle)
	if err != nil {
		return nil, err
	}
	return change(own)
}

const (
	firefoxFile = "policies.json"
	// maxPolicyFiles bounds the policies of a browser that an image has.
	maxPolicyFiles = 64
)

// addChromium adds what covers a directory of managed policies.
func addChromium(files map[string][]byte, dir string, store TrustStore, ca *x509.Certificate) error {
	own := map[string][]byte{}
	if !store.Source.Location.IsZero() {
		var err error
		if own, err = store.Source.ReadFiles(maxPolicyFiles, MaxBundle); err != nil {
			return err
		}
	}
	changed, err := truststore.AddChromium(own, ca)
	for name, data := range changed {
		files[path.Join(dir, name)] = data
	}
	return err
}

// SystemBundles are where distributions keep their roots: Debian, Fedora and
// RHEL (the second is the first's target), openSUSE, Alpine and BSDs.
var SystemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",
	"/etc/pki/tls/certs/ca-bundle.crt",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ssl/ca-bundle.pem",
	"/etc/ssl/cert.pem",
}

// hostRoots reads the host's bundle, for an image that has none.
func hostRoots() []byte {
	for _, p := range SystemBundles {
		if data, err := (rootfs.Path{Location: rootfs.At(p), Path: "/"}).Read(MaxBundle); err == nil {
			return data
		}
	}
	return nil
}

// digestOf returns a name for files, by their names and content.
func digestOf(files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%s\x00%d\x00", name, len(files[name]))
		h.Write(files[name])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// writeTree makes a directory with files that every user can read. It appears with
// all of them.
func writeTree(dir string, files map[string][]byte) (err error) {
	made, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	if err := os.Chmod(made, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if sub := filepath.Join(made, filepath.Dir(name)); sub != made {
			if err := makeReadable(sub); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
		if err := fileio.Replace(filepath.Join(made, name), data, 0o644); err != nil {
			return err
		}
	}
	if err = os.Rename(made, dir); err == nil {
		return nil
	}
	if _, lerr := os.Lstat(dir); lerr == nil { // another container has made the same
		return os.RemoveAll(made)
	}
	return err
}

// makeReadable makes a directory that the workload can read as its own user,
// whatever the umask.
func makeReadable(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(dir, 0o755)
}

// recordUncovered says which programs of a container will not accept the CA.
func (s *Sandbox) recordUncovered(container string, t trust) {
	for _, text := range t.uncovered {
		s.record(audit.Event{Class: audit.ClassConfig, Activity: "TRUST", Severity: audit.SeverityLow,
			Message: fmt.Sprintf("container %s: programs that go by %s do not accept the sandbox's CA",
				container, audit.Escape(text, 512))})
	}
}

// trustedUpstream returns what upstream certificates must chain to: the host's
// roots and the node's extra ones. The latter are checked now; the former are
// parsed when the first certificate is to be verified, because parsing them
// takes longer than all else that a sandbox does at its start.
func (s *Sandbox) trustedUpstream() (func() *x509.CertPool, error) {
	var extra [][]byte
	for _, file := range s.config.TLS.ExtraRoots {
		data, err := safefile.Read(file, MaxBundle)
		if err != nil {
			return nil, fmt.Errorf("tls.extra_roots: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("tls.extra_roots: %s holds no certificate in PEM", file)
		}
		extra = append(extra, data)
	}
	return sync.OnceValue(func() *x509.CertPool {
		pool, err := x509.SystemCertPool()
		if err != nil {
			s.recordError("the host's CA certificates could not be read", err)
			pool = x509.NewCertPool()
		}
		for _, data := range extra {
			pool.AppendCertsFromPEM(data)
		}
		return pool
	}), nil
}
