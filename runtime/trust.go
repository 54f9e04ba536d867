// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/truststore"
)

// Programs find their CAs in two ways: by a variable, which trustVariables set, and
// at places that are built in, of which trustStores finds those that the image has.
// docs/clients.md lists the clients.

// trustVariable points clients at a file of CAs.
type trustVariable struct {
	name  string
	added bool // to the client's own CAs, which the file need not have
}

var trustVariables = []trustVariable{
	{name: "SSL_CERT_FILE"},                    // OpenSSL, Go, Ruby, PHP, Python's ssl, rustls-native-certs (uv), .NET
	{name: "REQUESTS_CA_BUNDLE"},               // Python's requests, conda, the Azure CLI
	{name: "PIP_CERT"},                         // pip
	{name: "CURL_CA_BUNDLE"},                   // curl, R
	{name: "GIT_SSL_CAINFO"},                   // git
	{name: "CARGO_HTTP_CAINFO"},                // cargo
	{name: "AWS_CA_BUNDLE"},                    // the AWS CLI and SDKs
	{name: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"}, // gRPC's C core: grpcio, Ruby, PHP
	{name: "NIX_SSL_CERT_FILE"},                // nix
	{name: "HEX_CACERTS_PATH"},                 // Elixir's mix
	{name: "PERL_LWP_SSL_CA_FILE"},             // Perl's LWP
	{name: "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"},
	{name: "HTTPLIB2_CA_CERTS"},
	{name: "WEBSOCKET_CLIENT_CA_BUNDLE"},       // Python's websocket-client
	{name: "NODE_EXTRA_CA_CERTS", added: true}, // Node.js with npm, pnpm and yarn; bun
	{name: "DENO_CERT", added: true},
}

// withTrust adds the variables that point clients at the CA. One that the
// image or the user set is kept: trustStores looks at its file.
func withTrust(env []string, dir string) []string {
	for _, v := range trustVariables {
		if _, ok := lookup(env, v.name); ok {
			continue
		}
		file := sandbox.BundleFile
		if v.added {
			file = sandbox.CAFile
		}
		env = append(env, v.name+"="+dir+"/"+file)
	}
	return env
}

// lookup returns a variable's value, the last one as the kernel's users do.
func lookup(env []string, name string) (value string, ok bool) {
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// maxStores bounds what is covered in one image.
const maxStores = 64

// trustStores finds the trust stores of a container's file system, links resolved.
func (t tree) trustStores(p *specs.Process) (stores []sandbox.TrustStore) {
	system := true
	add := func(kind truststore.Kind, paths ...string) {
		for _, p := range paths {
			at, rel, target, ok := t.store(p)
			known := slices.ContainsFunc(stores, func(s sandbox.TrustStore) bool { return s.Target == target })
			if !ok || known || len(stores) >= maxStores {
				continue
			}
			source := rootfs.Path{Location: at.location, Path: rel}
			stores = append(stores, sandbox.TrustStore{Kind: kind, System: system, Target: target, Source: source})
		}
	}
	add(truststore.PEM, sandbox.SystemBundles...)
	system = false
	for _, v := range trustVariables {
		if value, ok := lookup(p.Env, v.name); ok && path.IsAbs(value) {
			add(truststore.PEM, value)
		}
	}
	pythons := t.prefixes(p, pythonPrefixes, "python3", "VIRTUAL_ENV", "CONDA_PREFIX")
	add(truststore.PEM, t.globs(pythons, pythonStores)...)
	add(truststore.Java, javaStores...)
	add(truststore.Java, t.globs(t.prefixes(p, jdkPrefixes, "java", "JAVA_HOME", "JRE_HOME"), jdkStores)...)
	return append(stores, t.browsers(p)...)
}

// store returns where a regular file is that a path leads to.
func (t tree) store(p string) (at volume, rel, target string, ok bool) {
	target, err := t.resolve(p)
	if err != nil {
		return volume{}, "", "", false
	}
	if at, rel, err = t.locate(target); err != nil {
		return volume{}, "", "", false
	}
	file, err := at.root.Lstat(rel)
	return at, rel, target, err == nil && file.IsRegular() && file.Size <= sandbox.MaxBundle
}

var (
	// javaStores are where distributions keep one for all JDKs.
	javaStores = []string{
		"/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts",
	}
	// jdkStores are a JDK's, below what it is installed in.
	jdkStores = []string{
		"lib/security/jssecacerts", "lib/security/cacerts", "jre/lib/security/jssecacerts", "jre/lib/security/cacerts",
	}
	// pythonStores are certifi's, which many packages have read whatever the
	// environment says, and conda's OpenSSL's, below what Python is installed in.
	pythonStores = []string{
		"lib/python3*/site-packages/certifi/cacert.pem", "lib/python3*/dist-packages/certifi/cacert.pem",
		"lib/python3/dist-packages/certifi/cacert.pem", "ssl/cacert.pem",
	}
	// What they are installed in, where no variable says so.
	jdkPrefixes = []string{
		"/usr/lib/jvm/*", "/usr/java/*", "/opt/*", "/opt/*/*", "/usr/local/*", "~/.sdkman/candidates/java/*",
	}
	pythonPrefixes = []string{"/usr", "/usr/local", "/opt/*", "/venv", "/app/.venv", "/app/venv"}
)

// prefixes returns the directories that a program may be installed in: the usual
// ones, those where it is on a process's PATH, and what variables name.
func (t tree) prefixes(p *specs.Process, usual []string, program string, variables ...string) (prefixes []string) {
	add := func(dirs ...string) {
		for _, dir := range dirs {
			if dir = path.Clean(dir); path.IsAbs(dir) && !slices.Contains(prefixes, dir) {
				prefixes = append(prefixes, dir)
			}
		}
	}
	home, hasHome := lookup(p.Env, "HOME")
	for _, pattern := range usual {
		below, ok := strings.CutPrefix(pattern, "~/")
		switch {
		case !ok:
			add(t.glob(pattern)...)
		case hasHome && path.IsAbs(home):
			add(t.glob(path.Join(home, below))...)
		}
	}
	for _, name := range variables {
		if value, ok := lookup(p.Env, name); ok {
			add(value)
		}
	}
	for _, dir := range searchPath(p.Env) {
		if !path.IsAbs(dir) {
			continue
		}
		at := path.Join(dir, program)
		if _, err := t.stat(at); err != nil {
			continue
		}
		add(path.Dir(path.Dir(at)))
		if resolved, err := t.resolve(at); err == nil {
			add(path.Dir(path.Dir(resolved)))
		}
	}
	return prefixes
}

// A browser is known by one of its places. Where it is in the image, what it is
// told by its administrator is mounted over policies, which need not exist.
type browser struct {
	kind     truststore.Kind
	places   []string
	policies string
}

var browsers = []browser{
	{truststore.Chromium, []string{
		"/usr/lib/chromium", "/usr/lib64/chromium-browser", "/usr/lib/chromium-browser", "/usr/bin/chromium",
		"/usr/bin/chromium-browser", playwright,
	}, "/etc/chromium/policies/managed"},
	{truststore.Chromium, []string{"/etc/chromium-browser"}, "/etc/chromium-browser/policies/managed"},
	{truststore.Chromium, []string{
		"/opt/google/chrome", "/opt/google/chrome-beta", "/opt/google/chrome-unstable",
	}, "/etc/opt/chrome/policies/managed"},
	{truststore.Chromium, []string{playwright}, "/etc/opt/chrome_for_testing/policies/managed"},
	{truststore.Chromium, []string{"/opt/microsoft/msedge"}, "/etc/opt/edge/policies/managed"},
	{truststore.Chromium, []string{"/opt/brave.com/brave"}, "/etc/brave/policies/managed"},
	{truststore.Firefox, []string{
		"/usr/lib/firefox-esr", "/usr/lib/firefox", "/usr/lib64/firefox", "/opt/firefox", "/usr/local/firefox",
		"/usr/bin/firefox", "/usr/bin/firefox-esr", playwright,
	}, "/etc/firefox/policies"},
}

// playwright stands for the directories in which Playwright and Puppeteer keep
// browsers.
const playwright = ""

// browsers returns what covers the policies of the browsers that the image has.
func (t tree) browsers(p *specs.Process) (stores []sandbox.TrustStore) {
	caches := []string{"/ms-playwright"}
	if dir, ok := lookup(p.Env, "PLAYWRIGHT_BROWSERS_PATH"); ok && path.IsAbs(dir) {
		caches = append(caches, dir)
	}
	if home, ok := lookup(p.Env, "HOME"); ok && path.IsAbs(home) {
		caches = append(caches, path.Join(home, ".cache/ms-playwright"), path.Join(home, ".cache/puppeteer"))
	}
	exists := func(p string) bool { _, err := t.stat(p); return err == nil }
	for _, b := range browsers {
		if !slices.ContainsFunc(b.places, func(p string) bool {
			return p == playwright && slices.ContainsFunc(caches, exists) || p != playwright && exists(p)
		}) {
			continue
		}
		target, err := t.resolve(b.policies)
		if err != nil {
			continue
		}
		store := sandbox.TrustStore{Kind: b.kind, Target: target}
		for _, own := range b.own() {
			if at, rel, err := t.find(own); err == nil && at.root != nil {
				if _, err := at.root.Lstat(rel); err == nil {
					store.Source = rootfs.Path{Location: at.location, Path: rel}
					break
				}
			}
		}
		stores = append(stores, store)
	}
	return stores
}

// own returns where an image may have policies, the one first that hides the others.
func (b browser) own() []string {
	if b.kind != truststore.Firefox {
		return []string{b.policies}
	}
	files := []string{path.Join(b.policies, "policies.json")}
	for _, dir := range b.places {
		if dir != playwright {
			files = append(files, path.Join(dir, "distribution/policies.json"))
		}
	}
	return files
}

// globs returns what patterns below directories match.
func (t tree) globs(dirs, patterns []string) (paths []string) {
	for _, dir := range dirs {
		for _, pattern := range patterns {
			paths = append(paths, t.glob(path.Join(dir, pattern))...)
		}
	}
	return paths
}

// maxListed bounds the directories of an image that are listed.
const maxListed = 512

// glob returns the paths that a pattern may mean, as filepath.Glob does; one without
// a wildcard need not exist.
func (t tree) glob(pattern string) []string {
	dir, rest, found := cutWildcard(pattern)
	if !found {
		return []string{pattern}
	}
	at, rel, err := t.find(dir)
	if err != nil || at.root == nil {
		return nil
	}
	names, err := at.root.ReadDir(rel, maxListed)
	if err != nil {
		return nil
	}
	element, rest, _ := strings.Cut(rest, "/")
	var paths []string
	for _, name := range names {
		if ok, err := filepath.Match(element, name); ok && err == nil {
			paths = append(paths, t.glob(path.Join(dir, name, rest))...)
		}
	}
	return paths
}

// cutWildcard splits a pattern before the first element with a wildcard.
func cutWildcard(pattern string) (dir, rest string, found bool) {
	i := strings.IndexByte(pattern, '*')
	if i < 0 {
		return pattern, "", false
	}
	slash := strings.LastIndexByte(pattern[:i], '/')
	return pattern[:slash+1], pattern[slash+1:], true
}
