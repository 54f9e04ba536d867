// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// PackageName is the one package that PyPIHost, NPMHost and DebianHost have. It is
// in version PackageVersion, until there is another: see [Net.Release].
const (
	PackageName    = "fakenet-greeting"
	PackageVersion = "1.0.0"
)

// ModulePath is the Go module that GoHost has, in the same version.
const ModulePath = "code.example/greeting"

// startPackages serves a Python package index, an npm registry, a Go module proxy
// and a Debian archive, each real enough for its own installer.
func (n *Net) startPackages() error {
	for host, origin := range map[string]registry{PyPIHost: pypi, NPMHost: npm, GoHost: goProxy, DebianHost: debian} {
		if err := n.https(host, n.editions(origin)); err != nil {
			return err
		}
	}
	return nil
}

// registry serves one version of a package.
type registry func(version string) (http.Handler, error)

// editions serves the version that is current. Each is made when it is first
// asked for.
func (n *Net) editions(origin registry) http.Handler {
	type edition struct {
		http.Handler
		err error
	}
	var mu sync.Mutex
	made := map[string]edition{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version := n.packageVersion()
		mu.Lock()
		e, ok := made[version]
		if !ok {
			e.Handler, e.err = origin(version)
			made[version] = e
		}
		mu.Unlock()
		if e.err != nil {
			http.Error(w, e.err.Error(), http.StatusInternalServerError)
			return
		}
		e.ServeHTTP(w, r)
	})
}

// Release puts another version in the place of the packages', until [Net.Reset].
// What has a version or a digest in its path moves.
func (n *Net) Release() { n.releases.Add(1) }

func (n *Net) packageVersion() string {
	if releases := n.releases.Load(); releases > 0 {
		return fmt.Sprintf("1.%d.0", releases)
	}
	return PackageVersion
}

// pypi follows the simple repository API (PEP 503) in HTML. Files are where
// PyPI has them, by their digest.
func pypi(version string) (http.Handler, error) {
	wheel, err := makeWheel(version)
	if err != nil {
		return nil, err
	}
	name := "fakenet_greeting-" + version + "-py3-none-any.whl"
	digest := fmt.Sprintf("%x", sha256.Sum256(wheel))
	file := "/packages/" + digest[:2] + "/" + digest[2:4] + "/" + digest[4:] + "/" + name
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/{$}", html(fmt.Sprintf(`<a href="/simple/%[1]s/">%[1]s</a>`, PackageName)))
	mux.HandleFunc("GET /simple/"+PackageName+"/{$}", html(fmt.Sprintf(`<a href="%s#sha256=%s">%s</a>`, file, digest, name)))
	mux.HandleFunc("GET "+file, content("application/octet-stream", wheel))
	return mux, nil
}

// makeWheel builds the smallest wheel (PEP 427) that pip installs.
func makeWheel(version string) ([]byte, error) {
	info := fmt.Sprintf("fakenet_greeting-%s.dist-info/", version)
	files := []file{
		{"fakenet_greeting.py", "def greet():\n    return 'hello from fakenet'\n"},
		{info + "METADATA", fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", PackageName, version)},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: fakenet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	}
	var record strings.Builder
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	add := func(name, text string) error {
		w, err := archive.Create(name)
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, text)
		return err
	}
	for _, file := range files {
		if err := add(file.name, file.text); err != nil {
			return nil, err
		}
		sum := sha256.Sum256([]byte(file.text))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", file.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(file.text))
	}
	fmt.Fprintf(&record, "%sRECORD,,\n", info)
	if err := add(info+"RECORD", record.String()); err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// npm follows the registry's package metadata format.
func npm(version string) (http.Handler, error) {
	tarball, err := makeTarball(version)
	if err != nil {
		return nil, err
	}
	sum := sha512.Sum512(tarball)
	file := "/" + PackageName + "/-/" + PackageName + "-" + version + ".tgz"
	metadata, err := json.Marshal(map[string]any{
		"name":      PackageName,
		"dist-tags": map[string]string{"latest": version},
		"versions": map[string]any{version: map[string]any{
			"name":    PackageName,
			"version": version,
			"dist": map[string]string{
				"tarball":   "https://" + NPMHost + file,
				"integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+PackageName, content("application/json", metadata))
	mux.HandleFunc("GET "+file, content("application/octet-stream", tarball))
	return mux, nil
}

func makeTarball(version string) ([]byte, error) {
	return tarGzip(
		file{"package/package.json", fmt.Sprintf(`{"name":%q,"version":%q,"main":"index.js"}`, PackageName, version)},
		file{"package/index.js", "module.exports = () => 'hello from fakenet'\n"},
	)
}

// file is one of an archive.
type file struct{ name, text string }

func tarGzip(files ...file) ([]byte, error) {
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	for _, f := range files {
		header := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(archive, f.text); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	if err := compressed.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func html(body string) http.HandlerFunc {
	return content("text/html; charset=utf-8", []byte("<!DOCTYPE html><html><body>"+body+"</body></html>\n"))
}

func content(mediaType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Write(body)
	}
}
