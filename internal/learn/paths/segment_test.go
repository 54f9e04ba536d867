// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"strings"
	"testing"
)

func TestAbstract(t *testing.T) {
	digest := strings.Repeat("ab", 30)
	for path, want := range map[string]string{
		"/p/fakenet_greeting-1.0.0-py3-none-any.whl": "/p/fakenet_greeting-{version}-py3-none-any.whl",
		"/p/idna-3.4-py3-none-any.whl":               "/p/idna-{version}-py3-none-any.whl",
		"/p/pip-24.0rc1.tar.gz":                      "/p/pip-{version}.tar.gz",
		"/greeting/-/greeting-1.0.0-rc.1.tgz":        "/greeting/-/greeting-{version}-rc.1.tgz",
		"/pool/main/libc6_2.36-9+deb12u4_amd64.deb":  "/pool/main/libc6_{version}_amd64.deb",
		"/mod/@v/v1.0.0.zip":                         "/mod/@v/{version}.zip",
		"/dl/node-v20.1.0-linux-x64.tar.xz":          "/dl/node-{version}-linux-x64.tar.xz",
		"/dl/go1.21.0.linux-amd64.tar.gz":            "/dl/go1.21.0.linux-amd64.tar.gz",
		"/docs/page-1.2.html":                        "/docs/page-1.2.html",
		"/docs/utf-8/x-1-2":                          "/docs/utf-8/x-1-2",
		"/p/-1.0.0.tgz":                              "/p/-1.0.0.tgz",
		"/packages/44/8d/" + digest + "/a-1.0.0.whl": "/packages/{hex}/{hex}/{hex}/a-{version}.whl",
		"/packages/ab/cd/" + digest + "/a":           "/packages/{hex}/{hex}/{hex}/a",
		"/pages/de/" + digest:                        "/pages/de/{hex}",
		"/packages/ab/cd/readme":                     "/packages/ab/cd/readme",
	} {
		if got := "/" + strings.Join(abstract(path), "/"); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
		if !isPattern(want) {
			t.Errorf("%s cannot be stored", want)
		}
	}
}
