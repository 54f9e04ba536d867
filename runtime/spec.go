// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/netns"
)

// markKey is where a rewritten config.json keeps what a second preparation needs
// to start from the engine's own words. It is a field of its own and not an
// annotation: engines copy their users' annotations into the file, but nobody
// but this package can have written the field.
const markKey = "openshell.ai"

// mark is the value of markKey.
type mark struct {
	Network *string   `json:"network"`        // the network namespace's path; nil where the spec had none
	User    bool      `json:"user,omitempty"` // the user namespace had no path
	Mounts  []mounted `json:"mounts"`         // that were added
	// Lent are the system calls that the profile was made to allow.
	Lent []string `json:"lent,omitempty"`
}

// mounted identifies a mount.
type mounted struct {
	Destination string `json:"destination"`
	Source      string `json:"source"`
}

// launcher is openshell-init's path inside the container.
var launcher = filepath.Join(confine.Dir, confine.InitName)

// droppedCapabilities would let a workload undo its sandbox, or reach around
// it (capabilities(7)).
var droppedCapabilities = []string{
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT",
	"CAP_SYS_TIME", "CAP_SYS_PTRACE", "CAP_BPF", "CAP_PERFMON", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE",
	"CAP_CHECKPOINT_RESTORE", "CAP_SYS_RESOURCE",
}

// preparation is what a bundle is rewritten with.
type preparation struct {
	ready    sandbox.Ready
	launcher string       // openshell-init's path on the host
	views    []kernelView // what the engine's mounts show of the kernel
	trustDir string       // where the container finds the sandbox's CA
	seccomp  bool         // put a default profile in where there is none
	profile  string       // a file with what is refused besides, if any
	hook     *specs.Hook
	attended bool // openshell-init stays as the first process
}

// modifier is one edit of a container's configuration.
type modifier func(*specs.Spec, preparation) error

// modifiers are all edits, in order.
var modifiers = []modifier{
	useInnerNamespace,
	useUserNamespace,
	confineFirstProcess,
	protectKernel,
	addSeccomp,
	mountLauncher,
	mountAuthority,
	addHook,
}

// rewrite applies every edit to a spec, and what changed to its document.
func rewrite(doc document, spec *specs.Spec, p preparation) error {
	m := mark{Network: networkPath(spec), User: p.ready.User != "", Lent: lentCalls(spec.Linux.Seccomp)}
	before := slices.Clone(spec.Mounts)
	hadSeccomp := spec.Linux.Seccomp != nil
	for _, modify := range modifiers {
		if err := modify(spec, p); err != nil {
			return err
		}
	}
	for _, added := range spec.Mounts[len(before):] {
		m.Mounts = append(m.Mounts, mounted{added.Destination, added.Source})
	}
	errs := []error{
		setProcess(doc, spec.Process, "process"),
		setOptions(doc, before, spec.Mounts),
		setList(doc, spec.Mounts, "mounts"),
		setList(doc, spec.Linux.Namespaces, "linux", "namespaces"),
		doc.set(spec.Linux.MaskedPaths, "linux", "maskedPaths"),
		doc.set(spec.Linux.ReadonlyPaths, "linux", "readonlyPaths"),
		doc.set(m, markKey),
	}
	if m.User {
		errs = append(errs, setList(doc, spec.Linux.UIDMappings, "linux", "uidMappings"), setList(doc, spec.Linux.GIDMappings, "linux", "gidMappings"))
	}
	if p.hook != nil {
		errs = append(errs, setList(doc, spec.Hooks.CreateRuntime, "hooks", "createRuntime"))
	}
	if !hadSeccomp {
		errs = append(errs, doc.set(spec.Linux.Seccomp, "linux", "seccomp"))
	} else if len(m.Lent) > 0 {
		errs = append(errs, setList(doc, spec.Linux.Seccomp.Syscalls, "linux", "seccomp", "syscalls"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("rewrite config.json: %w", err)
	}
	return nil
}

// restore takes the edits of an earlier preparation back that would otherwise
// add up. A file that was edited since is taken as it is.
func restore(doc document, spec *specs.Spec) error {
	written, ok := doc.root[markKey]
	if !ok {
		return nil
	}
	var m mark
	if err := specialize(written, &m); err != nil {
		return fmt.Errorf("field %q: %w", markKey, err)
	}
	if p := spec.Process; isLaunched(p.Args) {
		p.Args = p.Args[2:]
	}
	spec.Mounts = slices.DeleteFunc(spec.Mounts, func(x specs.Mount) bool {
		return slices.Contains(m.Mounts, mounted{x.Destination, x.Source})
	})
	if spec.Hooks != nil {
		spec.Hooks.CreateRuntime = slices.DeleteFunc(spec.Hooks.CreateRuntime, isAdmission)
		if err := setList(doc, spec.Hooks.CreateRuntime, "hooks", "createRuntime"); err != nil {
			return err
		}
	}
	if err := restoreSeccomp(doc, spec.Linux.Seccomp, m.Lent); err != nil {
		return err
	}
	if i := indexOf(spec, specs.UserNamespace); m.User && i >= 0 {
		spec.Linux.Namespaces[i].Path = ""
	}
	if m.Network == nil {
		spec.Linux.Namespaces = slices.DeleteFunc(spec.Linux.Namespaces, isNetwork)
	} else if i := indexOf(spec, specs.NetworkNamespace); i >= 0 {
		spec.Linux.Namespaces[i].Path = *m.Network
	}
	return nil
}

// indexOf returns where a spec has a namespace of a type, or -1.
func indexOf(spec *specs.Spec, kind specs.LinuxNamespaceType) int {
	return slices.IndexFunc(spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func isNetwork(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace }

// networkPath returns the path of the spec's network namespace, empty for a new
// one, and nil where the spec has none: the host's.
func networkPath(spec *specs.Spec) *string {
	i := indexOf(spec, specs.NetworkNamespace)
	if i < 0 {
		return nil
	}
	path := spec.Linux.Namespaces[i].Path
	return &path
}

// useInnerNamespace puts the workload into the sealed namespace, whatever the
// engine asked for.
func useInnerNamespace(spec *specs.Spec, p preparation) error {
	i := indexOf(spec, specs.NetworkNamespace)
	if i < 0 {
		i = len(spec.Linux.Namespaces)
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	spec.Linux.Namespaces[i].Path = p.ready.Inner
	return nil
}

// userNamespaceOf reads which user namespace a container is in, nil for the host's.
func userNamespaceOf(spec *specs.Spec) *netns.Owner {
	i := indexOf(spec, specs.UserNamespace)
	if i < 0 || spec.Linux.Namespaces[i].Path == "" && len(spec.Linux.UIDMappings) == 0 {
		return nil // the low-level runtime says that there must be mappings
	}
	if path := spec.Linux.Namespaces[i].Path; path != "" {
		return &netns.Owner{Path: path}
	}
	sortMappings(spec.Linux.UIDMappings)
	sortMappings(spec.Linux.GIDMappings)
	return &netns.Owner{UIDs: mappingsOf(spec.Linux.UIDMappings), GIDs: mappingsOf(spec.Linux.GIDMappings)}
}

func mappingsOf(list []specs.LinuxIDMapping) (out []netns.IDMapping) {
	for _, m := range list {
		out = append(out, netns.IDMapping{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size})
	}
	return out
}

// sortMappings brings mappings into the order in which the kernel shows them where
// there are more than a few.
func sortMappings(list []specs.LinuxIDMapping) {
	slices.SortFunc(list, func(a, b specs.LinuxIDMapping) int { return cmp.Compare(a.ContainerID, b.ContainerID) })
}

// useUserNamespace puts the workload into the user namespace that was made for it,
// with the mappings that the engine asked for. They stay in the configuration: some
// low-level runtimes need them though the namespace exists, and others compare them,
// in order, with what the kernel shows.
func useUserNamespace(spec *specs.Spec, p preparation) error {
	if i := indexOf(spec, specs.UserNamespace); i >= 0 && p.ready.User != "" {
		spec.Linux.Namespaces[i].Path = p.ready.User
	}
	return nil
}

func confineFirstProcess(spec *specs.Spec, p preparation) error {
	confineProcess(spec.Process, p.trustDir)
	if p.attended {
		spec.Process.Args = slices.Insert(spec.Process.Args, 1, "--stay")
	}
	return nil
}

// mountLauncher brings openshell-init and its files in, with read-only mounts on
// the container's own /dev, so that nothing is left in the image.
func mountLauncher(spec *specs.Spec, p preparation) error {
	spec.Mounts = append(spec.Mounts,
		bind(p.ready.Confine, confine.Dir),
		bind(p.launcher, launcher))
	if p.profile != "" {
		spec.Mounts = append(spec.Mounts, bind(p.profile, filepath.Join(confine.Dir, confine.ProfileName)))
	}
	return nil
}

func bind(source, destination string) specs.Mount {
	return specs.Mount{Type: "bind", Source: source, Destination: destination,
		Options: []string{"bind", "ro", "nosuid", "nodev"}}
}

// mountAuthority gives the workload the files of the sandbox's CA, and covers the
// image's own trust stores.
func mountAuthority(spec *specs.Spec, p preparation) error {
	spec.Mounts = append(spec.Mounts, bind(p.ready.TLS, p.trustDir))
	for _, c := range p.ready.Covers {
		spec.Mounts = append(spec.Mounts, bind(c.Source, c.Target))
	}
	return nil
}

// confineProcess rewrites a container's first process, or one that is executed
// in it later: openshell-init becomes its program. trustDir is where the container
// has the sandbox's CA.
func confineProcess(p *specs.Process, trustDir string) {
	if !isLaunched(p.Args) {
		p.Args = append([]string{launcher, "--"}, p.Args...)
	}
	p.NoNewPrivileges = true
	if p.Capabilities != nil {
		dropFrom(p.Capabilities)
	}
	p.Env = withTrust(p.Env, trustDir)
}

// isLaunched reports whether openshell-init is the program already. Only in these
// words: its flags would name another confinement.
func isLaunched(args []string) bool {
	return len(args) >= 2 && args[0] == launcher && args[1] == "--"
}

// setProcess writes what confineProcess changes, at a path.
func setProcess(doc document, p *specs.Process, path ...string) error {
	set := func(value any, keys ...string) error { return doc.set(value, slices.Concat(path, keys)...) }
	errs := []error{
		set(p.Args, "args"),
		set(p.Env, "env"),
		set(p.NoNewPrivileges, "noNewPrivileges"),
	}
	if c := p.Capabilities; c != nil {
		errs = append(errs,
			set(c.Bounding, "capabilities", "bounding"),
			set(c.Effective, "capabilities", "effective"),
			set(c.Inheritable, "capabilities", "inheritable"),
			set(c.Permitted, "capabilities", "permitted"),
			set(c.Ambient, "capabilities", "ambient"))
	}
	return errors.Join(errs...)
}

// ConfineProcess rewrites the JSON of a process that is to be executed in a
// running container: it gets the confinement that the first one got. at is the
// container's root directory, mounts included.
func ConfineProcess(at rootfs.Location, data []byte) ([]byte, error) {
	doc, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	if len(p.Args) == 0 {
		return nil, errors.New("process.args: no program")
	}
	confineProcess(&p, trustDirOf(at))
	if err := setProcess(doc, &p); err != nil {
		return nil, fmt.Errorf("process: %w", err)
	}
	return doc.bytes()
}

// trustDirOf returns where a running container has the sandbox's CA.
func trustDirOf(at rootfs.Location) string {
	root, err := at.Open()
	if err != nil {
		return sandbox.TrustDir
	}
	defer root.Close()
	if file, err := root.Lstat(sandbox.ReadOnlyTrustDir + "/" + sandbox.CAFile); err == nil && file.IsRegular() {
		return sandbox.ReadOnlyTrustDir
	}
	return sandbox.TrustDir
}

// CheckExec fails where the program of a process that is to be executed in a
// running container certainly does not exist there, in runc's words. at is the
// container's root directory, mounts included.
func CheckExec(at rootfs.Location, data []byte) error {
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return fmt.Errorf("process: %w", err)
	}
	root, err := at.Open()
	if err != nil || len(p.Args) == 0 {
		return nil // the low-level runtime says what is wrong
	}
	defer root.Close()
	return tree{volume: volume{at, root}}.checkProgram(&p)
}

// fileCapabilities are those of droppedCapabilities that files of many images have, such
// as ping. The kernel executes these files only where the bounding set has them.
// No process gains anything by that, for no_new_privs is set.
var fileCapabilities = []string{"CAP_NET_ADMIN", "CAP_NET_RAW"}

func dropFrom(c *specs.LinuxCapabilities) {
	for _, set := range []*[]string{&c.Effective, &c.Inheritable, &c.Permitted, &c.Ambient} {
		*set = slices.DeleteFunc(*set, isDropped)
	}
	c.Bounding = slices.DeleteFunc(c.Bounding, func(name string) bool {
		return isDropped(name) && !slices.Contains(fileCapabilities, canonicalCapability(name))
	})
}

// isDropped reports whether a capability is one of droppedCapabilities, in any
// spelling that a runtime might take: exec's --cap may lack the prefix.
func isDropped(capability string) bool {
	return slices.Contains(droppedCapabilities, canonicalCapability(capability))
}

func canonicalCapability(name string) string {
	return "CAP_" + strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "CAP_")
}
