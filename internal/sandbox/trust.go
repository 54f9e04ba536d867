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
	"strings"
	"sync"

	"golang.org/x/sys/unix"
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
	// System is true for one of SystemBundles. Elsewhere a link may lead to any file
	// of the container, which has to be a bundle for anything to happen to it.
	System bool `json:"system,omitzero"`
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

const (
	// MaxBundle bounds what is read of an image's trust store, in bytes. Mozilla's
	// roots have 220 KB.
	MaxBundle = 8 << 20
	// maxTrust bounds what is read of all of them.
	maxTrust = 4 * MaxBundle
)

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
	top := filepath.Join(s.tlsDir(), digestOf(files))
	t.dir = filepath.Join(top, trustDirName)
	for i := range t.covers {
		t.covers[i].Source = filepath.Join(top, t.covers[i].Source)
	}
	if _, err := os.Lstat(top); err == nil {
		return t, nil
	}
	if err := writeTree(top, files); err != nil {
		return trust{}, fmt.Errorf("write CA: %w", err)
	}
	return t, nil
}

// trustFile is a file for a container. What covers one of the image's belongs to
// whom that belongs to, and can be read by nobody else.
type trustFile struct {
	data     []byte
	mode     fs.FileMode
	uid, gid uint32
}

// Only trustDirName is mounted as a whole: who cannot reach a store in the image does not
// reach its cover either.
const (
	trustDirName = "dir"
	coversName   = "covers"
)

// trustFiles returns what is made for a container, by name. The sources of the covers
// are names, too.
func trustFiles(stores []TrustStore, ca *x509.Certificate) (files map[string]trustFile, t trust, err error) {
	b := trustBuilder{ca: ca, pem: truststore.AddPEM(nil, ca), left: maxTrust, files: map[string]trustFile{}}
	for i, store := range stores {
		name, err := b.cover(store, path.Join(coversName, fmt.Sprintf("%s-%d", store.Kind, i)))
		switch {
		case err != nil && store.System:
			return nil, trust{}, fmt.Errorf("CA bundle %s of the container: %w", store.Target, err)
		case err != nil:
			t.uncovered = append(t.uncovered, fmt.Sprintf("%s: %v", store.Target, err))
		default:
			t.covers = append(t.covers, Cover{Source: name, Target: store.Target})
		}
	}
	if b.files[bundleName].data == nil {
		b.add(bundleName, truststore.AddPEM(hostRoots(), ca), rootfs.File{Mode: 0o644})
	}
	b.add(path.Join(trustDirName, CAFile), b.pem, rootfs.File{Mode: 0o644})
	return b.files, t, nil
}

// bundleName is what clients are pointed at.
var bundleName = path.Join(trustDirName, BundleFile)

// trustBuilder makes the files of one container.
type trustBuilder struct {
	ca    *x509.Certificate
	pem   []byte // of ca
	left  int64  // bytes that may be read
	files map[string]trustFile
}

// add adds a file that is to be as another one is.
func (b *trustBuilder) add(name string, data []byte, as rootfs.File) {
	b.files[name] = trustFile{data, fs.FileMode(as.Mode & 0o777), as.UID, as.GID}
}

// read reads what the image has, which may be nothing.
func (b *trustBuilder) read(store TrustStore) ([]byte, rootfs.File, error) {
	if store.Source.Location.IsZero() {
		return nil, rootfs.File{Mode: 0o644}, nil
	}
	data, file, err := store.Source.Read(min(b.left, MaxBundle))
	b.left -= int64(len(data))
	return data, file, err
}

// cover makes what covers a store, by the given name or another that it returns.
func (b *trustBuilder) cover(store TrustStore, name string) (string, error) {
	if store.Kind == truststore.Chromium {
		return name, b.coverChromium(store, name)
	}
	own, file, err := b.read(store)
	if err != nil {
		return "", err
	}
	switch store.Kind {
	case truststore.PEM:
		return b.coverBundle(store, name, own, file)
	case truststore.Java:
		added, err := truststore.AddJava(own, b.ca)
		if err != nil {
			return "", err
		}
		b.add(name, added, file)
	case truststore.Firefox:
		added, err := truststore.AddFirefox(own, path.Join(store.Target, CAFile))
		if err != nil {
			return "", err
		}
		b.add(path.Join(name, firefoxFile), added, file)
		b.add(path.Join(name, CAFile), b.pem, rootfs.File{Mode: 0o644})
	default:
		return "", fmt.Errorf("kind %q is not known", store.Kind)
	}
	return name, nil
}

// coverBundle covers a bundle. The first one that everybody may read is what clients
// are pointed at.
func (b *trustBuilder) coverBundle(store TrustStore, name string, own []byte, file rootfs.File) (string, error) {
	if !store.System && !truststore.IsPEM(own) {
		return "", errors.New("no certificates in PEM")
	}
	data := truststore.AddPEM(own, b.ca)
	first, ok := b.files[bundleName]
	if public := file.Mode&unix.S_IROTH != 0; public && !ok {
		b.add(bundleName, data, rootfs.File{Mode: 0o644})
		first = b.files[bundleName]
	}
	if file.Mode&0o777 == 0o644 && file.UID == 0 && file.GID == 0 && slices.Equal(first.data, data) {
		return bundleName, nil
	}
	b.add(name, data, file)
	return name, nil
}

const (
	firefoxFile = "policies.json"
	// maxPolicyFiles bounds the policies of a browser that an image has.
	maxPolicyFiles = 64
)

// coverChromium covers a directory of managed policies.
func (b *trustBuilder) coverChromium(store TrustStore, name string) error {
	own := map[string][]byte{}
	if !store.Source.Location.IsZero() {
		var err error
		if own, err = store.Source.ReadFiles(maxPolicyFiles, min(b.left, MaxBundle)); err != nil {
			return err
		}
	}
	changed, err := truststore.AddChromium(own, b.ca)
	if err != nil {
		return err
	}
	for file, data := range changed {
		b.left -= int64(len(data))
		b.add(path.Join(name, file), data, rootfs.File{Mode: 0o644})
	}
	return nil
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
		if data, _, err := (rootfs.Path{Location: rootfs.At(p), Path: "/"}).Read(MaxBundle); err == nil {
			return data
		}
	}
	return nil
}

// digestOf returns a name for files, by all that they are.
func digestOf(files map[string]trustFile) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		fmt.Fprintf(h, "%s\x00%o %d %d %d\x00", name, f.mode, f.uid, f.gid, len(f.data))
		h.Write(f.data)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// writeTree makes a directory with files. It appears with all of them.
func writeTree(dir string, files map[string]trustFile) (err error) {
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
	for name, f := range files {
		if err := f.write(made, name); err != nil {
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

func (f trustFile) write(top, name string) error {
	at := top
	for part := range strings.SplitSeq(path.Dir(name), "/") {
		at = filepath.Join(at, part)
		if err := makeReadable(at); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	file := filepath.Join(top, name)
	if err := fileio.Replace(file, f.data, f.mode); err != nil {
		return err
	}
	if f.uid == 0 && f.gid == 0 {
		return nil
	}
	return os.Lchown(file, int(f.uid), int(f.gid))
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
