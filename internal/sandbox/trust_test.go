// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/truststore"
	"openshell.ai/openshell/proxy"
)

func newCA(t *testing.T) *proxy.CA {
	t.Helper()
	ca, err := proxy.NewCA()
	must(t, err)
	return ca
}

// imageWith makes a root file system with files.
func imageWith(t *testing.T, files map[string]string) rootfs.Location {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return rootfs.At(dir)
}

func storeIn(image rootfs.Location, kind truststore.Kind, path string) TrustStore {
	system := slices.Contains(SystemBundles, path)
	return TrustStore{Kind: kind, System: system, Target: path, Source: rootfs.Path{Location: image, Path: path}}
}

// certificates returns those of a bundle.
func certificates(t *testing.T, file string) (raw []string) {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		raw = append(raw, string(cert.Raw))
	}
	return raw
}

func TestTrustFiles(t *testing.T) {
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	image, other := newCA(t), newCA(t)
	const bundle, second, same = "/etc/ssl/certs/ca-certificates.crt", "/venv/cacert.pem", "/conda/cacert.pem"
	text := strings.TrimSuffix(string(image.PEM()), "\n")
	at := imageWith(t, map[string]string{bundle: text, second: string(other.PEM()), same: text, "/jdk/cacerts": "no store",
		"/policies/a.json": `{"HomepageLocation":"x"}`, "/ff/policies.json": `{"policies":{"DisableTelemetry":true}}`})
	r.Stores = []TrustStore{storeIn(at, truststore.PEM, bundle), storeIn(at, truststore.PEM, second), storeIn(at, truststore.PEM, same),
		storeIn(at, truststore.Java, "/jdk/cacerts"), storeIn(at, truststore.Chromium, "/policies"),
		{Kind: truststore.Firefox, Target: "/etc/firefox/policies", Source: rootfs.Path{Location: at, Path: "/ff/policies.json"}},
		{Kind: truststore.Chromium, Target: "/none"}}
	defer unix.Umask(unix.Umask(0o077)) // an engine's
	s := start(t, c, r)
	own := string(s.authority.Certificate().Raw)
	ready := s.Ready()
	covers := map[string]string{}
	for _, c := range ready.Covers {
		covers[c.Target] = c.Source
	}
	for file, want := range map[string][]string{
		filepath.Join(ready.TLS, CAFile):               {own},
		filepath.Join(ready.TLS, BundleFile):           {string(image.Certificate().Raw), own},
		covers[bundle]:                                 {string(image.Certificate().Raw), own},
		covers[same]:                                   {string(image.Certificate().Raw), own},
		covers[second]:                                 {string(other.Certificate().Raw), own},
		covers["/etc/firefox/policies"] + "/" + CAFile: {own},
	} {
		if got := certificates(t, file); !slices.Equal(got, want) {
			t.Errorf("%s has %d certificates", file, len(got))
		}
	}
	var policies struct {
		Policies struct {
			DisableTelemetry bool
			Certificates     struct{ Install []string }
		} `json:"policies"`
	}
	data, err := os.ReadFile(covers["/etc/firefox/policies"] + "/policies.json")
	must(t, err)
	must(t, json.Unmarshal(data, &policies))
	if p := policies.Policies; !p.DisableTelemetry || !slices.Equal(p.Certificates.Install, []string{"/etc/firefox/policies/" + CAFile}) {
		t.Errorf("policies.json: %s", data)
	}
	for _, dir := range []string{covers["/policies"], covers["/none"]} {
		if data, err := os.ReadFile(filepath.Join(dir, truststore.ChromiumFile)); err != nil || !strings.Contains(string(data), "CACertificates") {
			t.Errorf("%s: %s, %v", dir, data, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(covers["/policies"], "a.json")); err != nil || !strings.Contains(string(data), "Homepage") {
		t.Errorf("the image's policy: %s, %v", data, err)
	}
	if _, ok := covers["/jdk/cacerts"]; ok || len(covers) != 6 {
		t.Errorf("covered: %v", covers)
	}
	eventually(t, "the log says what is not covered", func() bool {
		return strings.Contains(logOf(t, s), "programs that go by /jdk/cacerts: neither JKS nor PKCS#12")
	})
	must(t, filepath.WalkDir(s.tlsDir(), func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		if want := map[bool]fs.FileMode{true: 0o755, false: 0o644}[d.IsDir()]; err != nil || info.Mode().Perm() != want {
			t.Errorf("the workload cannot read %s: %v, %v", path, info, err)
		}
		return nil
	}))
}

// Each container of a pod keeps what its own image trusts.
func TestTrustOfSeveralContainers(t *testing.T) {
	c := newNode(t)
	root := t.TempDir()
	pause := request(root, "pause")
	pause.Outer = Outer{Kind: OuterPath, Path: namespaceFile(t)}
	s := start(t, c, pause)
	own := string(s.authority.Certificate().Raw)
	hosts := append(slices.Clone(rawOf(t, hostRoots())), own)
	if got := certificates(t, filepath.Join(s.Ready().TLS, BundleFile)); !slices.Equal(got, hosts) {
		t.Errorf("an image without a bundle has %d certificates, the host %d", len(got), len(hosts)-1)
	}
	join := func(id string, stores ...TrustStore) Ready {
		t.Helper()
		r := request(root, id)
		r.Outer, r.Stores = pause.Outer, stores
		ready, err := Open(t.Context(), c, r, inProcess(t))
		must(t, err)
		return ready
	}
	private := newCA(t)
	const bundle = "/etc/ssl/cert.pem"
	one := join("one", storeIn(imageWith(t, map[string]string{bundle: string(private.PEM())}), truststore.PEM, bundle))
	pruned := join("pruned", storeIn(imageWith(t, map[string]string{bundle: ""}), truststore.PEM, bundle))
	again := join("again", storeIn(imageWith(t, map[string]string{bundle: string(private.PEM())}), truststore.PEM, bundle))
	for name, tt := range map[string]struct {
		ready Ready
		want  []string
	}{"a private CA": {one, []string{string(private.Certificate().Raw), own}}, "none": {pruned, []string{own}}} {
		if got := certificates(t, filepath.Join(tt.ready.TLS, BundleFile)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d certificates", name, len(got))
		}
	}
	if one.TLS != again.TLS || one.TLS == pruned.TLS || one.TLS == s.Ready().TLS {
		t.Errorf("directories %s, %s, %s, %s", s.Ready().TLS, one.TLS, pruned.TLS, again.TLS)
	}
	if one.Inner != s.Ready().Inner || one.Confine != s.Ready().Confine {
		t.Errorf("another sandbox: %+v", one)
	}
}

func rawOf(t *testing.T, bundle []byte) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bundle")
	must(t, os.WriteFile(file, bundle, 0o600))
	return certificates(t, file)
}

// An image must not be able to hold up or blow up its own start, and what cannot be
// read is no reason to trust the host's roots.
func TestHostileBundles(t *testing.T) {
	dir := t.TempDir()
	bundle := filepath.Join(dir, "b")
	ca := newCA(t).Certificate()
	for name, make := range map[string]func() error{
		"named pipe": func() error { return unix.Mkfifo(bundle, 0o644) },
		"directory":  func() error { return os.Mkdir(bundle, 0o755) },
		"endless":    func() error { return os.WriteFile(bundle, nil, 0o644) },
		"link away":  func() error { return os.Symlink("../../../../../../../etc/hostname", bundle) },
	} {
		must(t, make())
		if name == "endless" {
			must(t, os.Truncate(bundle, 1<<40))
		}
		for _, kind := range []truststore.Kind{truststore.PEM, truststore.Java, truststore.Firefox, truststore.Chromium} {
			store := storeIn(rootfs.At(dir), kind, "/b")
			store.System = kind == truststore.PEM
			files, got, err := trustFiles([]TrustStore{store}, ca)
			switch {
			case kind == truststore.PEM && err == nil:
				t.Errorf("%s: %d bytes", name, len(files[bundleName].data))
			case kind != truststore.PEM && (err != nil || len(got.uncovered) != 1) && (kind != truststore.Chromium || name != "directory"):
				t.Errorf("%s as %s: %+v, %v", name, kind, got, err)
			}
		}
		must(t, os.Remove(bundle))
	}
}

// A cover can be read by nobody who cannot read what it covers, and is in no place
// where more can reach it.
func TestCoversAreAsPrivate(t *testing.T) {
	image := newCA(t)
	at := imageWith(t, map[string]string{"/secret.pem": string(image.PEM()), "/mine.pem": string(image.PEM())})
	text, err := at.MarshalText()
	must(t, err)
	must(t, os.Chmod(string(text)+"/secret.pem", 0o600))
	must(t, os.Lchown(string(text)+"/mine.pem", 1000, 1001))
	c := newNode(t)
	r := request(t.TempDir(), "c1")
	r.Stores = []TrustStore{storeIn(at, truststore.PEM, "/secret.pem"), storeIn(at, truststore.PEM, "/mine.pem")}
	ready := start(t, c, r).Ready()
	want := []unix.Stat_t{{Mode: unix.S_IFREG | 0o600}, {Mode: unix.S_IFREG | 0o644, Uid: 1000, Gid: 1001}}
	for i, cover := range ready.Covers {
		var st unix.Stat_t
		must(t, unix.Lstat(cover.Source, &st))
		if st.Mode != want[i].Mode || st.Uid != want[i].Uid || st.Gid != want[i].Gid {
			t.Errorf("%s: mode %o, of %d and %d", cover.Target, st.Mode, st.Uid, st.Gid)
		}
		if strings.HasPrefix(cover.Source, ready.TLS+"/") {
			t.Errorf("%s is seen in the directory of the CA, too", cover.Target)
		}
	}
	if got := certificates(t, filepath.Join(ready.TLS, BundleFile)); len(ready.Covers) != 2 || len(got) != 2 {
		t.Errorf("%d covers, %d certificates", len(ready.Covers), len(got))
	}
	entries, err := os.ReadDir(ready.TLS)
	if err != nil || len(entries) != 2 {
		t.Errorf("the directory of the CA has %v, %v", entries, err)
	}
}

// A link may lead to any file of the container: what is no bundle stays as it is.
func TestLinkToWhatIsNoBundle(t *testing.T) {
	ca := newCA(t).Certificate()
	for name, text := range map[string]string{
		"shadow": "root:!:0:::::", "empty": "", "key": "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
	} {
		at := imageWith(t, map[string]string{"/file": text})
		_, got, err := trustFiles([]TrustStore{storeIn(at, truststore.PEM, "/file")}, ca)
		if err != nil || len(got.covers) > 0 || len(got.uncovered) != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// All stores of an image together are bounded.
func TestManyLargeStores(t *testing.T) {
	at := imageWith(t, map[string]string{"/large": string(newCA(t).PEM()) + strings.Repeat("#", MaxBundle-4096)})
	var stores []TrustStore
	for range 8 {
		stores = append(stores, storeIn(at, truststore.PEM, "/large"))
	}
	_, got, err := trustFiles(stores, newCA(t).Certificate())
	if err != nil || len(got.covers) != 4 || len(got.uncovered) != 4 {
		t.Errorf("%d covered, %d not, %v", len(got.covers), len(got.uncovered), err)
	}
}
