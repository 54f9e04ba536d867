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
)

// PackageName is the one package that PyPIHost and NPMHost have, in version
// PackageVersion.
const (
	PackageName    = "fakenet-greeting"
	PackageVersion = "1.0.0"
)

const (
	wheelName   = "fakenet_greeting-" + PackageVersion + "-py3-none-any.whl"
	tarballName = PackageName + "-" + PackageVersion + ".tgz"
)

// startPackages serves a Python package index and an npm registry, each real
// enough for its own installer.
func (n *Net) startPackages() error {
	index, err := pypi()
	if err != nil {
		return fmt.Errorf("make the python package: %w", err)
	}
	if err := n.https(PyPIHost, index); err != nil {
		return err
	}
	registry, err := npm()
	if err != nil {
		return fmt.Errorf("make the npm package: %w", err)
	}
	return n.https(NPMHost, registry)
}

// pypi follows the simple repository API (PEP 503) in HTML.
func pypi() (http.Handler, error) {
	wheel, err := makeWheel()
	if err != nil {
		return nil, err
	}
	file := "/packages/" + wheelName
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/{$}", html(fmt.Sprintf(`<a href="/simple/%[1]s/">%[1]s</a>`, PackageName)))
	mux.HandleFunc("GET /simple/"+PackageName+"/{$}",
		html(fmt.Sprintf(`<a href="%s#sha256=%x">%s</a>`, file, sha256.Sum256(wheel), wheelName)))
	mux.HandleFunc("GET "+file, content("application/octet-stream", wheel))
	return mux, nil
}

// makeWheel builds the smallest wheel (PEP 427) that pip installs.
func makeWheel() ([]byte, error) {
	info := fmt.Sprintf("fakenet_greeting-%s.dist-info/", PackageVersion)
	files := []struct{ name, text string }{
		{"fakenet_greeting.py", "def greet():\n    return 'hello from fakenet'\n"},
		{info + "METADATA", fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", PackageName, PackageVersion)},
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
func npm() (http.Handler, error) {
	tarball, err := makeTarball()
	if err != nil {
		return nil, err
	}
	sum := sha512.Sum512(tarball)
	file := "/" + PackageName + "/-/" + tarballName
	metadata, err := json.Marshal(map[string]any{
		"name":      PackageName,
		"dist-tags": map[string]string{"latest": PackageVersion},
		"versions": map[string]any{PackageVersion: map[string]any{
			"name":    PackageName,
			"version": PackageVersion,
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

func makeTarball() ([]byte, error) {
	var out bytes.Buffer
	compressed := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressed)
	for _, file := range []struct{ name, text string }{
		{"package/package.json", fmt.Sprintf(`{"name":%q,"version":%q,"main":"index.js"}`, PackageName, PackageVersion)},
		{"package/index.js", "module.exports = () => 'hello from fakenet'\n"},
	} {
		header := &tar.Header{Name: file.name, Mode: 0o644, Size: int64(len(file.text)), Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(archive, file.text); err != nil {
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
