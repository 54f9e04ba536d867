package runtime

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/confine"
	"openshell.ai/openshell/sandbox"
)

// Annotations that mark a bundle as prepared, and keep what a second
// preparation of the same bundle needs to start from the engine's own words.
const (
	annotationPrepared = annotations.Internal + "prepared"
	annotationNetwork  = annotations.Internal + "network"
)

// launcher is openshell-init's path inside the container.
var launcher = filepath.Join(confine.Dir, confine.InitName)

// tlsDir is where the workload finds the sandbox's CA.
const tlsDir = "/etc/openshell-tls"

// droppedCapabilities would let a workload undo its sandbox, or reach around
// it (capabilities(7)).
var droppedCapabilities = []string{
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT",
	"CAP_SYS_TIME", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_PERFMON", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE",
	"CAP_CHECKPOINT_RESTORE",
}

// preparation is what a bundle is rewritten with.
type preparation struct {
	ready    sandbox.Ready
	launcher string   // openshell-init's path on the host
	bundles  []string // paths in the container of the image's CA bundles
	hidden   []string // paths in the container that are masked
	seccomp  bool     // put a default profile in where there is none
}

// modifier is one edit of a container's configuration.
type modifier func(*specs.Spec, preparation) error

// modifiers are all edits, in order.
var modifiers = []modifier{
	useInnerNamespace,
	launchConfined,
	dropCapabilities,
	addSeccomp,
	trustAuthority,
	hidePaths,
	markPrepared,
}

// rewrite applies every edit to a spec, and the parts that changed to its
// document.
func rewrite(doc document, spec *specs.Spec, p preparation) error {
	for _, modify := range modifiers {
		if err := modify(spec, p); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		value any
		path  []string
	}{
		{spec.Process.Args, []string{"process", "args"}},
		{spec.Process.Env, []string{"process", "env"}},
		{spec.Process.Capabilities, []string{"process", "capabilities"}},
		{spec.Process.NoNewPrivileges, []string{"process", "noNewPrivileges"}},
		{spec.Mounts, []string{"mounts"}},
		{spec.Annotations, []string{"annotations"}},
		{spec.Linux.Namespaces, []string{"linux", "namespaces"}},
		{spec.Linux.Seccomp, []string{"linux", "seccomp"}},
		{spec.Linux.MaskedPaths, []string{"linux", "maskedPaths"}},
	} {
		if err := doc.set(part.value, part.path...); err != nil {
			return fmt.Errorf("rewrite config.json: %w", err)
		}
	}
	return nil
}

// restore takes the edits of an earlier preparation back that would otherwise
// add up.
func restore(spec *specs.Spec) {
	if spec.Annotations[annotationPrepared] == "" {
		return
	}
	if len(spec.Process.Args) > 2 && spec.Process.Args[0] == launcher {
		spec.Process.Args = spec.Process.Args[2:]
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m specs.Mount) bool {
		return within(m.Destination, confine.Dir) || m.Destination == tlsDir ||
			strings.HasSuffix(m.Source, "/tls/"+sandbox.BundleFile)
	})
	for i := range spec.Linux.Namespaces {
		if spec.Linux.Namespaces[i].Type == specs.NetworkNamespace {
			spec.Linux.Namespaces[i].Path = spec.Annotations[annotationNetwork]
		}
	}
	if spec.Annotations[annotationNetwork] == networkAbsent {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, isNetwork)
	}
	delete(spec.Annotations, annotationPrepared)
	delete(spec.Annotations, annotationNetwork)
}

// networkAbsent stands in annotationNetwork for a spec without a network
// namespace: the host's.
const networkAbsent = "none"

func isNetwork(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }

// useInnerNamespace puts the workload into the sealed namespace, whatever the
// engine asked for.
func useInnerNamespace(spec *specs.Spec, p preparation) error {
	i := slices.IndexFunc(spec.Linux.Namespaces, isNetwork)
	original := networkAbsent
	if i >= 0 {
		original = spec.Linux.Namespaces[i].Path
		spec.Linux.Namespaces[i].Path = p.ready.Inner
	} else {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces,
			specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: p.ready.Inner})
	}
	annotate(spec, annotationNetwork, original)
	return nil
}

// launchConfined makes openshell-init the first program. Its files come with
// read-only mounts on the container's own /dev, so that nothing is left in the
// image.
func launchConfined(spec *specs.Spec, p preparation) error {
	spec.Process.Args = append([]string{launcher, "--"}, spec.Process.Args...)
	spec.Process.NoNewPrivileges = true
	spec.Mounts = append(spec.Mounts,
		bind(p.ready.Confine, confine.Dir),
		bind(p.launcher, launcher))
	return nil
}

func bind(source, destination string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: destination,
		Options: []string{"bind", "ro", "nosuid", "nodev"}}
}

func dropCapabilities(spec *specs.Spec, _ preparation) error {
	if c := spec.Process.Capabilities; c != nil {
		dropFrom(c)
	}
	return nil
}

func dropFrom(c *specs.LinuxCapabilities) {
	for _, set := range []*[]string{&c.Bounding, &c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient} {
		*set = slices.DeleteFunc(*set, func(name string) bool {
			return slices.Contains(droppedCapabilities, strings.ToUpper(name))
		})
	}
}

// addSeccomp puts the engines' common default profile where the spec has none.
// openshell's own filter is stacked on either by openshell-init.
func addSeccomp(spec *specs.Spec, p preparation) error {
	if spec.Linux.Seccomp != nil || !p.seccomp {
		return nil
	}
	profile, err := seccomp.GetDefaultProfile(spec)
	if err != nil {
		return fmt.Errorf("default seccomp profile: %w", err)
	}
	spec.Linux.Seccomp = profile
	return nil
}

// trustAuthority gives the workload the sandbox's CA: as files, in the image's
// own bundles, and in the variables that clients look at.
func trustAuthority(spec *specs.Spec, p preparation) error {
	spec.Mounts = append(spec.Mounts, bind(p.ready.TLS, tlsDir))
	for _, path := range p.bundles {
		spec.Mounts = append(spec.Mounts, bind(filepath.Join(p.ready.TLS, sandbox.BundleFile), path))
	}
	spec.Process.Env = withTrust(spec.Process.Env)
	return nil
}

// withTrust adds the variables that point clients at the CA. One that the
// image or the user set is kept.
func withTrust(env []string) []string {
	bundle := tlsDir + "/" + sandbox.BundleFile
	for _, v := range []struct{ name, value string }{
		{"SSL_CERT_FILE", bundle},
		{"REQUESTS_CA_BUNDLE", bundle},
		{"CURL_CA_BUNDLE", bundle},
		{"GIT_SSL_CAINFO", bundle},
		{"CARGO_HTTP_CAINFO", bundle},
		{"AWS_CA_BUNDLE", bundle},
		{"NODE_EXTRA_CA_CERTS", tlsDir + "/" + sandbox.CAFile},
		{"DENO_CERT", tlsDir + "/" + sandbox.CAFile},
		{"JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=" + tlsDir + "/" + sandbox.TrustStoreFile +
			" -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=" + sandbox.TrustStorePassword},
	} {
		prefix := v.name + "="
		if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, prefix) }) {
			env = append(env, prefix+v.value)
		}
	}
	return env
}

// hidePaths masks what of the host a container may see but must not read.
func hidePaths(spec *specs.Spec, p preparation) error {
	for _, path := range p.hidden {
		if !slices.Contains(spec.Linux.MaskedPaths, path) {
			spec.Linux.MaskedPaths = append(spec.Linux.MaskedPaths, path)
		}
	}
	return nil
}

func markPrepared(spec *specs.Spec, _ preparation) error {
	annotate(spec, annotationPrepared, "true")
	return nil
}

func annotate(spec *specs.Spec, key, value string) {
	if spec.Annotations == nil {
		spec.Annotations = make(map[string]string)
	}
	spec.Annotations[key] = value
}

// confineProcess rewrites a process that is executed in a running container:
// it gets what the first one got.
func confineProcess(data []byte) ([]byte, error) {
	doc, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	if len(p.Args) == 0 {
		return nil, fmt.Errorf("process.args: no program")
	}
	if p.Args[0] != launcher {
		p.Args = append([]string{launcher, "--"}, p.Args...)
	}
	if p.Capabilities != nil {
		dropFrom(p.Capabilities)
		if err := doc.set(p.Capabilities, "capabilities"); err != nil {
			return nil, fmt.Errorf("process: %w", err)
		}
	}
	for _, part := range []struct {
		value any
		key   string
	}{{p.Args, "args"}, {withTrust(p.Env), "env"}, {true, "noNewPrivileges"}} {
		if err := doc.set(part.value, part.key); err != nil {
			return nil, fmt.Errorf("process: %w", err)
		}
	}
	return doc.bytes()
}

// within tells whether a clean absolute path is a directory or below it.
func within(path, dir string) bool {
	path = filepath.Clean(path)
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
