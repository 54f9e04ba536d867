// SPDX-License-Identifier: Apache-2.0

package fakenet

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
)

// goProxy follows the GOPROXY protocol (go.dev/ref/mod#goproxy-protocol).
func goProxy(version string) (http.Handler, error) {
	version = "v" + version
	mod := "module " + ModulePath + "\n"
	var source bytes.Buffer
	archive := zip.NewWriter(&source)
	for _, f := range []file{
		{"go.mod", mod},
		{"greeting.go", "package greeting\n\nconst Text = \"hello from fakenet\"\n"},
	} {
		w, err := archive.Create(ModulePath + "@" + version + "/" + f.name)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	info := fmt.Appendf(nil, `{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version)
	at := "GET /" + ModulePath + "/@v/"
	mux := http.NewServeMux()
	mux.HandleFunc(at+"list", content("text/plain", []byte(version+"\n")))
	mux.HandleFunc(at+version+".info", content("application/json", info))
	mux.HandleFunc(at+version+".mod", content("text/plain", []byte(mod)))
	mux.HandleFunc(at+version+".zip", content("application/zip", source.Bytes()))
	return mux, nil
}

// debian is a flat archive, not signed: "deb [trusted=yes] https://HOST/ ./"
// (sources.list(5)).
func debian(version string) (http.Handler, error) {
	name := PackageName + "_" + version + "_all.deb"
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: fakenet <fakenet@git.example>\n"+
		"Description: a greeting\n", PackageName, version)
	deb, err := makeDeb(control)
	if err != nil {
		return nil, err
	}
	packages := fmt.Appendf(nil, "%sFilename: ./pool/%s\nSize: %d\nSHA256: %x\n\n", control, name, len(deb), sha256.Sum256(deb))
	release := fmt.Appendf(nil, "Suite: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n %x %d Packages\n",
		sha256.Sum256(packages), len(packages))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /Release", content("text/plain", release))
	mux.HandleFunc("GET /Packages", content("text/plain", packages))
	mux.HandleFunc("GET /pool/"+name, content("application/vnd.debian.binary-package", deb))
	return mux, nil
}

// makeDeb builds a package as deb(5) has it: an ar(5) archive of three members.
func makeDeb(control string) ([]byte, error) {
	meta, err := tarGzip(file{"./control", control})
	if err != nil {
		return nil, err
	}
	data, err := tarGzip(file{"./usr/share/greeting/text", "hello from fakenet\n"})
	if err != nil {
		return nil, err
	}
	out := bytes.NewBufferString("!<arch>\n")
	for _, member := range []file{{"debian-binary", "2.0\n"}, {"control.tar.gz", string(meta)}, {"data.tar.gz", string(data)}} {
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", member.name, 0, 0, 0, 0o100644, len(member.text), member.text)
		if len(member.text)%2 != 0 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}
