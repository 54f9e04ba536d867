// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The images, made here: there is no registry.
const (
	boxImage   = "openshell.test/box:1"   // busybox and the network client
	pauseImage = "openshell.test/pause:1" // of a pod's sandbox container
)

const (
	clientPath  = "/usr/bin/client"
	patientPath = "/usr/bin/patient" // exits with 9 when it is told to end
	toolPath    = "/usr/bin/tool"    // a link to the client
	// The image's own CA bundle, and how it begins.
	bundlePath = "/etc/ssl/certs/ca-certificates.crt"
	bundleMark = "# the image's own\n"
)

// file is a file, a link or, with neither, a directory of an image.
type file struct {
	name    string
	content []byte
	link    string
	mode    int64
}

func boxFiles(client string) ([]file, error) {
	const busybox = "/bin/busybox"
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox's applets (a static busybox must be at %s): %w", busybox, err)
	}
	var files []file
	for _, dir := range []string{"bin", "dev", "etc", "etc/ssl", "etc/ssl/certs", "proc", "sys", "tmp", "usr", "usr/bin", "outside"} {
		files = append(files, file{name: dir, mode: 0o755})
	}
	for path, from := range map[string]string{"bin/busybox": busybox, clientPath[1:]: client, bundlePath[1:]: bundlePath} {
		content, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if path == bundlePath[1:] {
			content = append([]byte(bundleMark), content...)
		}
		files = append(files, file{name: path, content: content, mode: 0o755})
	}
	for applet := range linesOf(string(applets)) {
		if applet != "busybox" {
			files = append(files, file{name: "bin/" + applet, link: "busybox"})
		}
	}
	patient := "#!/bin/sh\ntrap 'exit 9' TERM\nwhile :; do sleep 0.1; done\n"
	passwd := "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n"
	return append(files,
		file{name: patientPath[1:], content: []byte(patient), mode: 0o755},
		file{name: toolPath[1:], link: "client"},
		file{name: "etc/passwd", content: []byte(passwd), mode: 0o644},
		file{name: "etc/group", content: []byte("root:x:0:\nuser:x:1000:\n"), mode: 0o644}), nil
}

// tarOf packs files.
func tarOf(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		switch {
		case f.link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		case f.content == nil:
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// archive is an OCI image layout that is being packed.
type archive struct {
	files []file
	index ocispec.Index
}

func (a *archive) blob(mediaType string, content []byte) ocispec.Descriptor {
	d := digest.FromBytes(content)
	a.files = append(a.files, file{name: "blobs/sha256/" + d.Encoded(), content: content, mode: 0o644})
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content))}
}

func (a *archive) object(mediaType string, value any) (ocispec.Descriptor, error) {
	content, err := json.Marshal(value)
	return a.blob(mediaType, content), err
}

// add puts an image of one layer in.
func (a *archive) add(name string, config ocispec.ImageConfig, files []file) error {
	layer, err := tarOf(files)
	if err != nil {
		return err
	}
	image := ocispec.Image{
		Platform: platform(), Config: config,
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	configured, err := a.object(ocispec.MediaTypeImageConfig, image)
	if err != nil {
		return err
	}
	manifest, err := a.object(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: configured,
		Layers: []ocispec.Descriptor{a.blob(ocispec.MediaTypeImageLayer, layer)},
	})
	if err != nil {
		return err
	}
	here := platform()
	manifest.Platform = &here
	manifest.Annotations = map[string]string{"io.containerd.image.name": name, ocispec.AnnotationRefName: name}
	a.index.Manifests = append(a.index.Manifests, manifest)
	return nil
}

func (a *archive) write(w io.Writer) error {
	a.index.SchemaVersion = 2
	a.index.MediaType = ocispec.MediaTypeImageIndex
	index, err := json.Marshal(a.index)
	if err != nil {
		return err
	}
	text, err := tarOf(append([]file{
		{name: ocispec.ImageLayoutFile, content: []byte(`{"imageLayoutVersion":"1.0.0"}`), mode: 0o644},
		{name: "index.json", content: index, mode: 0o644},
	}, a.files...))
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// writeImages makes the archive of all images.
func writeImages(path, client, pause string) error {
	box, err := boxFiles(client)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(pause)
	if err != nil {
		return err
	}
	a := new(archive)
	env := []string{"PATH=/bin:/usr/bin"}
	if err := a.add(boxImage, ocispec.ImageConfig{Env: env, Cmd: []string{"/bin/sh"}}, box); err != nil {
		return err
	}
	err = a.add(pauseImage, ocispec.ImageConfig{Env: env, Entrypoint: []string{"/pause"}},
		[]file{{name: "pause", content: program, mode: 0o755}})
	if err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	return a.write(out)
}

func platform() ocispec.Platform {
	return ocispec.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
}
