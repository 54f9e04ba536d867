// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
)

// found describes the stores of an image: kind, target, and what the image has
// there.
func found(t *testing.T, files tree, env ...string) (list []string) {
	t.Helper()
	for _, s := range files.trustStores(&specs.Process{Env: env}) {
		text := string(s.Kind) + " " + s.Target
		if data, _, err := s.Source.Read(10); err == nil {
			text += " " + string(data)
		} else if !s.Source.Location.IsZero() {
			text += " " + s.Source.Path
		}
		list = append(list, text)
	}
	return list
}

func TestBundles(t *testing.T) {
	bundle := image(t, "rootfs/etc/ssl/certs/ca-certificates.crt=x", "rootfs/etc/ssl/cert.pem -> certs/ca-certificates.crt",
		"rootfs/etc/pki/tls/certs/ca-bundle.crt -> /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"rootfs/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem=y", "rootfs/etc/ssl/ca-bundle.pem|",
		"other/ca-certificates.crt=z")
	debian, fedora := "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
	for _, tt := range []struct {
		name   string
		mounts []specs.Mount
		want   []string
	}{
		{"the image's", nil, []string{"pem " + debian + " x", "pem " + fedora + " y"}},
		{"a volume's", []specs.Mount{bindMount("other", "/etc/ssl/certs")}, []string{"pem " + debian + " z", "pem " + fedora + " y"}},
		{"a file's", []specs.Mount{bindMount("other/ca-certificates.crt", debian)}, []string{"pem " + debian + " z", "pem " + fedora + " y"}},
		{"none of a volume", []specs.Mount{bindMount("rootfs", "/etc/ssl/certs")}, []string{"pem " + fedora + " y"}},
		{"none of a file system to come", []specs.Mount{{Type: "tmpfs", Destination: "/etc/ssl"}}, []string{"pem " + fedora + " y"}},
	} {
		if got := found(t, treeOf(t, bundle, tt.mounts...)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if err := os.Truncate(filepath.Join(bundle, "rootfs", debian), 1<<40); err != nil {
		t.Fatal(err)
	}
	if got := found(t, treeOf(t, bundle)); !slices.Equal(got, []string{"pem " + fedora + " y"}) {
		t.Errorf("an endless one: %q", got)
	}
	if got := found(t, treeOf(t, image(t))); got != nil {
		t.Errorf("an image without bundles has %q", got)
	}
}

func TestTrustStores(t *testing.T) {
	const (
		certifi  = "lib/python3.12/site-packages/certifi/cacert.pem"
		security = "lib/security/cacerts"
	)
	for _, tt := range []struct {
		name    string
		entries []string
		env     []string
		want    []string
	}{
		{"what a variable names", []string{"srv/corp.pem=x"}, []string{"SSL_CERT_FILE=/srv/corp.pem", "CURL_CA_BUNDLE=srv/corp.pem"},
			[]string{"pem /srv/corp.pem x"}},
		{"a variable's last value", []string{"a.pem=x", "b.pem=y"}, []string{"AWS_CA_BUNDLE=/a.pem", "AWS_CA_BUNDLE=/b.pem"}, []string{"pem /b.pem y"}},
		{"a variable that leads nowhere", []string{"dir/"}, []string{"SSL_CERT_FILE=/none", "CURL_CA_BUNDLE=/dir"}, nil},
		{"Debian's JDK", []string{"etc/ssl/certs/java/cacerts=x", "usr/lib/jvm/java-17/lib/security/cacerts -> /etc/ssl/certs/java/cacerts"}, nil,
			[]string{"java /etc/ssl/certs/java/cacerts x"}},
		{"JDKs", []string{"opt/java/openjdk/lib/security/cacerts=x", "usr/lib/jvm/a/jre/lib/security/cacerts=y", "usr/local/openjdk-8/" + security + "=z"}, nil,
			[]string{"java /usr/lib/jvm/a/jre/lib/security/cacerts y", "java /opt/java/openjdk/lib/security/cacerts x", "java /usr/local/openjdk-8/lib/security/cacerts z"}},
		{"jssecacerts", []string{"opt/j/lib/security/jssecacerts=x", "opt/j/lib/security/cacerts=y"}, nil,
			[]string{"java /opt/j/lib/security/jssecacerts x", "java /opt/j/lib/security/cacerts y"}},
		{"JAVA_HOME", []string{"home/me/jdk/lib/security/cacerts=x"}, []string{"JAVA_HOME=/home/me/jdk/"}, []string{"java /home/me/jdk/lib/security/cacerts x"}},
		{"java on PATH", []string{"srv/jdk/bin/java", "srv/jdk/lib/security/cacerts=x", "bin/java -> ../srv/jdk/bin/java"}, []string{"PATH=/sbin:/bin"},
			[]string{"java /srv/jdk/lib/security/cacerts x"}},
		{"certifi", []string{"usr/local/" + certifi + "=x", "usr/lib/python3/dist-packages/certifi/cacert.pem=y"}, nil,
			[]string{"pem /usr/lib/python3/dist-packages/certifi/cacert.pem y", "pem /usr/local/" + certifi + " x"}},
		{"certifi of Debian's", []string{"etc/ssl/certs/ca-certificates.crt=x",
			"usr/lib/python3/dist-packages/certifi/cacert.pem -> /etc/ssl/certs/ca-certificates.crt"}, nil, []string{"pem /etc/ssl/certs/ca-certificates.crt x"}},
		{"a virtual environment", []string{"work/env/" + certifi + "=x", "work/env/bin/python3 -> /usr/bin/python3", "usr/bin/python3"}, []string{"PATH=/work/env/bin:/bin"}, []string{"pem /work/env/" + certifi + " x"}},
		{"conda", []string{"opt/conda/ssl/cacert.pem=x", "opt/conda/" + certifi + "=y"}, nil,
			[]string{"pem /opt/conda/" + certifi + " y", "pem /opt/conda/ssl/cacert.pem x"}},
		{"Chromium", []string{"usr/lib/chromium/chromium"}, nil, []string{"chromium /etc/chromium/policies/managed"}},
		{"Chromium with policies", []string{"usr/bin/chromium", "etc/chromium/policies/managed/a.json=x"}, nil,
			[]string{"chromium /etc/chromium/policies/managed /etc/chromium/policies/managed"}},
		{"Chromium with policies elsewhere", []string{"usr/bin/chromium", "etc/chromium -> /srv/c", "srv/c/policies/"}, nil,
			[]string{"chromium /srv/c/policies/managed"}},
		{"Playwright", []string{"browsers/chromium-1/"}, []string{"PLAYWRIGHT_BROWSERS_PATH=/browsers"},
			[]string{"chromium /etc/chromium/policies/managed", "chromium /etc/opt/chrome_for_testing/policies/managed", "firefox /etc/firefox/policies"}},
		{"Puppeteer", []string{"home/me/.cache/puppeteer/"}, []string{"HOME=/home/me"},
			[]string{"chromium /etc/chromium/policies/managed", "chromium /etc/opt/chrome_for_testing/policies/managed", "firefox /etc/firefox/policies"}},
		{"Chrome", []string{"opt/google/chrome/chrome"}, nil, []string{"chromium /etc/opt/chrome/policies/managed"}},
		{"Firefox", []string{"usr/lib/firefox-esr/firefox-esr"}, nil, []string{"firefox /etc/firefox/policies"}},
		{"Firefox with policies of its own", []string{"opt/firefox/firefox", "opt/firefox/distribution/policies.json={}"}, nil,
			[]string{"firefox /etc/firefox/policies {}"}},
		{"Firefox with policies", []string{"opt/firefox/distribution/policies.json={}", "etc/firefox/policies/policies.json={ }"}, nil,
			[]string{"firefox /etc/firefox/policies { }"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, e := range tt.entries {
				tt.entries[i] = "rootfs/" + e
			}
			if got := found(t, treeOf(t, image(t, tt.entries...)), tt.env...); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// Links of an image that lead above its root, or nowhere, or round and round, are
// those of the container: nothing of the host is found.
func TestTrustStoresBehindLinks(t *testing.T) {
	host := t.TempDir()
	for name, text := range map[string]string{"cacerts": "the host's", "cacert.pem": "the host's"} {
		if err := os.WriteFile(filepath.Join(host, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	up := strings.Repeat("../", 30) + host
	bundle := image(t, "rootfs/usr/lib/jvm/a/lib/security -> "+up, "rootfs/usr/lib/jvm/b/lib/security/cacerts -> "+host+"/cacerts",
		"rootfs/usr/lib/jvm/c -> c", "rootfs/opt/conda/ssl -> "+up, "rootfs/opt/loop -> loop", "rootfs/usr/local -> "+host,
		"rootfs/etc/chromium -> "+up, "rootfs/usr/bin/chromium")
	for _, text := range found(t, treeOf(t, bundle)) {
		if text != "chromium "+path.Join(host, "policies/managed") { // a path of the container, which has nothing there
			t.Errorf("found %q", text)
		}
	}
}

func TestManyDirectories(t *testing.T) {
	bundle := image(t)
	for i := range 2 * maxStores {
		dir := filepath.Join(bundle, "rootfs/opt", strings.Repeat("x", i+1), "lib/security")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "cacerts"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := found(t, treeOf(t, bundle)); len(got) != maxStores {
		t.Errorf("%d stores", len(got))
	}
}

func TestTrustVariables(t *testing.T) {
	env := withTrust([]string{"SSL_CERT_FILE=/mine", "DENO_CERT="}, "/d")
	for _, v := range trustVariables {
		want := map[string]string{"SSL_CERT_FILE": "/mine", "DENO_CERT": "", "NODE_EXTRA_CA_CERTS": "/d/openshell-ca.pem"}
		value, ok := want[v.name]
		if !ok {
			value = "/d/ca-bundle.pem"
		}
		if got, ok := lookup(env, v.name); !ok || got != value {
			t.Errorf("%s=%s, want %s", v.name, got, value)
		}
	}
	if again := withTrust(slices.Clone(env), "/d"); !slices.Equal(again, env) {
		t.Errorf("twice: %q", again)
	}
}

// What a root file system that cannot be written to lacks is not mounted on.
func TestMountable(t *testing.T) {
	stores := []sandbox.TrustStore{{Target: "/etc/firefox/policies"}, {Target: "/vol/policies"}, {Target: "/etc/ca.pem"}}
	volume := specs.Mount{Type: "tmpfs", Destination: "/vol"}
	for _, tt := range []struct {
		name    string
		entries []string
		dir     string
		left    int
	}{
		{"nothing made", []string{"rootfs/etc/ca.pem=x"}, sandbox.ReadOnlyTrustDir, 2},
		{"all made", []string{"rootfs/etc/ca.pem=x", "rootfs/etc/openshell-tls/", "rootfs/etc/firefox/policies/"}, sandbox.TrustDir, 3},
		{"behind a link", []string{"rootfs/etc/ca.pem=x", "rootfs/etc/openshell-tls -> /vol/x"}, sandbox.TrustDir, 2},
	} {
		dir, left := treeOf(t, image(t, tt.entries...), volume).mountable(slices.Clone(stores))
		if dir != tt.dir || len(left) != tt.left {
			t.Errorf("%s: %s, %v", tt.name, dir, left)
		}
	}
}

func TestTrustDirOfARunningContainer(t *testing.T) {
	root := t.TempDir()
	if got := trustDirOf(rootfs.At(root)); got != sandbox.TrustDir {
		t.Errorf("got %s", got)
	}
	dir := filepath.Join(root, sandbox.ReadOnlyTrustDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := trustDirOf(rootfs.At(root)); got != sandbox.TrustDir {
		t.Errorf("with an empty mount point: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, sandbox.CAFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := trustDirOf(rootfs.At(root)); got != sandbox.ReadOnlyTrustDir {
		t.Errorf("got %s", got)
	}
	if got := trustDirOf(rootfs.Location{}); got != sandbox.TrustDir {
		t.Errorf("where there is none: %s", got)
	}
}

// A container's start waits for it.
func BenchmarkTrustStores(b *testing.B) {
	files, err := newTree("/", &specs.Spec{Root: &specs.Root{Path: "/"}})
	if err != nil {
		b.Fatal(err)
	}
	defer files.close()
	p := &specs.Process{Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}}
	for b.Loop() {
		files.trustStores(p)
	}
}
