// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/confine/denials"
	"openshell.ai/openshell/internal/confine/filter"
	"openshell.ai/openshell/internal/confine/observe"
	"openshell.ai/openshell/internal/libexec"
	"openshell.ai/openshell/internal/policystore"
	"openshell.ai/openshell/internal/safefile"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/netns"
	"openshell.ai/openshell/policy/engine"
)

func checkRoot(euid int) finding {
	if euid != 0 {
		return fail("root", fmt.Sprintf("runs as uid %d", euid),
			"run it as root: sandboxes need namespaces, and their state is root's")
	}
	return ok("root", "runs as root")
}

// checkLandlock is not required: without Landlock a policy that says best_effort still runs.
func checkLandlock() finding {
	abi, err := confine.LandlockABI()
	if err != nil {
		return warn("landlock", "no file is protected, and policies with landlock.compatibility hard_requirement are refused",
			err.Error())
	}
	return ok("landlock", fmt.Sprintf("ABI %d", abi))
}

// seccompActions are what the filter does with system calls, besides allowing them
// (SECCOMP_GET_ACTION_AVAIL, seccomp(2)).
var seccompActions = map[string]uint32{
	"SECCOMP_RET_ERRNO":        unix.SECCOMP_RET_ERRNO,
	"SECCOMP_RET_KILL_PROCESS": unix.SECCOMP_RET_KILL_PROCESS,
}

func checkSeccomp() finding {
	for name, action := range seccompActions {
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
		if errno != 0 {
			return fail("seccomp", fmt.Sprintf("the kernel lacks %s: %v", name, errno),
				"use a kernel from 4.14 on with CONFIG_SECCOMP_FILTER")
		}
	}
	code, err := filter.Compile(filter.Options{})
	if err != nil {
		return fail("seccomp", oneLine(err), "install libseccomp 2.5 or later")
	}
	return ok("seccomp", fmt.Sprintf("filters are available, ours have %d bytes", len(code.Loud)+len(code.Quiet)))
}

// checkNetwork does what the start of a sandbox does, in a namespace of its own.
func checkNetwork() finding {
	ns, err := netns.New()
	if err != nil {
		return fail("network", oneLine(err), "run it as root, on a kernel with CONFIG_NET_NS")
	}
	defer ns.Close()
	ipv6, err := netns.Seal(ns, nil)
	if err != nil {
		return fail("network", oneLine(err), "run it as root, and let it change addresses and routes (CAP_NET_ADMIN)")
	}
	if err := netns.Intercept(ns, nil); err != nil {
		return fail("network", oneLine(err), "load the kernel modules nf_tables, nft_chain_nat, nft_ct and nft_reject_inet")
	}
	connections, err := netns.NewConntrack(ns)
	if err != nil {
		return fail("network", oneLine(err), "load the kernel module nf_conntrack_netlink")
	}
	connections.Close()
	if !ipv6 {
		return warn("network", "nftables works; IPv6 is disabled, so sandboxes have IPv4 only",
			"boot without ipv6.disable=1 if IPv6 is wanted")
	}
	return ok("network", "namespaces and nftables work, IPv4 and IPv6")
}

// checkObservation looks at what files are learned by. Without it permissive runs
// still learn of the network.
func checkObservation() finding {
	const name = "observation"
	if err := observe.Supported(); err != nil {
		return warn(name, "permissive runs learn little or nothing of files: "+oneLine(err),
			"use a kernel from 5.17 on with CONFIG_FANOTIFY, and raise fs.fanotify.max_user_groups where it is used up")
	}
	r, err := denials.Open(func(int) bool { return false })
	if err != nil {
		return ok(name, "permissive runs learn of files; enforcing ones do not: "+oneLine(err))
	}
	r.Close()
	return ok(name, "permissive runs learn of files, and enforcing ones of what Landlock refuses")
}

// versionTimeout is how long a low-level runtime may take to say what it is.
const versionTimeout = 10 * time.Second

func checkRuntime(ctx context.Context, name string) finding {
	const fix = "install it, or name another as runtime in the configuration"
	path, err := exec.LookPath(name)
	if err != nil {
		return fail("runtime", oneLine(err), fix)
	}
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return fail("runtime", fmt.Sprintf("%s --version: %v", path, err), fix)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return ok("runtime", fmt.Sprintf("%s (%s)", path, version))
}

// a dynamic loader, which an image may not have.
// checkHelper checks a program that openshell calls, which has to run on its own in a
// container's or no root file system.
func checkHelper(name, program string) finding {
	return checkPlaces(name, program, libexec.Places(program))
}

func checkPlaces(name, program string, places []string) finding {
	fix := "install " + program + ", built with CGO_ENABLED=0, beside openshell"
	for _, path := range places {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		switch static, elfErr := isStatic(path); {
		case err != nil:
			return fail(name, err.Error(), fix)
		case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
			return fail(name, path+" is not an executable file", fix)
		case elfErr != nil:
			return fail(name, fmt.Sprintf("%s: %v", path, elfErr), fix)
		case !static:
			return fail(name, path+" is linked dynamically", fix)
		}
		return ok(name, path)
	}
	return fail(name, program+" is neither beside openshell nor in libexec", fix)
}

func isStatic(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// checkPrivate looks at a directory of ours, which is made when it is first needed. Whoever else can
// write to it can approve rules; whoever can read it sees what the workloads do.
func checkPrivate(field, dir string) finding {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok(field, dir+" is made when it is needed")
	case err != nil:
		return fail(field, oneLine(err), "name a directory that can be used as "+field)
	case !info.IsDir():
		return fail(field, dir+" is not a directory", "name a directory as "+field)
	}
	fix := fmt.Sprintf("chown root: %s; chmod 700 %s", dir, dir)
	mode := info.Mode().Perm()
	if err := safefile.CheckDir(dir); err != nil {
		return fail(field, oneLine(err), fix)
	}
	if mode&0o055 != 0 {
		return warn(field, fmt.Sprintf("%s has mode %04o: others can look into it", dir, mode), fix)
	}
	return ok(field, fmt.Sprintf("%s, mode %04o", dir, mode))
}

// checkPolicies looks at the operator's policies: who can change them, and whether they can be used.
func checkPolicies(c *config.Config) finding {
	const name = "policy_dir"
	if c.DefaultPolicy != "" {
		if _, err := policystore.Load(c, c.DefaultPolicy); err != nil {
			return fail(name, oneLine(err), "correct the policy that default_policy names, or name another")
		}
	}
	info, err := os.Stat(c.PolicyDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ok(name, c.PolicyDir+" does not exist: every policy starts from the default")
	case err != nil:
		return fail(name, oneLine(err), "name a directory that can be used as "+name)
	case !info.IsDir():
		return fail(name, c.PolicyDir+" is not a directory", "name a directory as "+name)
	}
	if err := safefile.CheckDir(c.PolicyDir); err != nil {
		return fail(name, oneLine(err), "let nobody but root write there")
	}
	entries, err := os.ReadDir(c.PolicyDir)
	if err != nil {
		return fail(name, oneLine(err), "name a directory that can be used as "+name)
	}
	policies := 0
	for _, e := range entries {
		stem, isPolicy := strings.CutSuffix(e.Name(), ".yaml")
		if !isPolicy {
			continue
		}
		policies++
		if _, err := policystore.Load(c, stem); err != nil {
			return warn(name, oneLine(err), "correct it: openshell policy check "+filepath.Join(c.PolicyDir, e.Name()))
		}
	}
	return ok(name, fmt.Sprintf("%s, %s", c.PolicyDir, count(policies, "policy", "policies")))
}

// checkCeilings looks at what bounds policies and permissive mode.
func checkCeilings(c *config.Config) finding {
	const name = "maximum"
	if _, err := engine.ParseEndpoints(c.Permissive.Never); err != nil {
		return fail("permissive.never", oneLine(err), "correct it in the configuration: host or host:port")
	}
	if c.MaximumPolicy == "" {
		return ok(name, "there is none")
	}
	// Any name will do: the maximum is every policy's.
	p, err := policystore.Load(c, cmp.Or(c.DefaultPolicy, "default"))
	if err != nil {
		return fail(name, oneLine(err), "correct the file: openshell policy check "+c.MaximumPolicy)
	}
	if err := p.CheckMaximum(); err != nil {
		return warn(name, "the default exceeds it: "+oneLine(err), "narrow the default policy, or widen the maximum")
	}
	return ok(name, c.MaximumPolicy)
}

// proxyTimeout is how long the site's proxy may take to answer.
const proxyTimeout = 5 * time.Second

// checkUpstreamProxy connects to the site's proxy, from the node's own network.
func checkUpstreamProxy(ctx context.Context, c *config.Config) finding {
	const name = "upstream_proxy"
	proxy, err := sandbox.UpstreamProxy(c.UpstreamProxy)
	switch {
	case err != nil:
		return fail(name, oneLine(err), "correct it in the configuration, or the file that it names")
	case proxy == nil:
		return ok(name, "there is none")
	}
	proxy.Dial = func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, to.String())
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	if err := proxy.Check(ctx); err != nil {
		return warn(name, c.UpstreamProxy.URL+" is not reached from the node's own network: "+oneLine(err),
			"correct upstream_proxy.url or .ca, or start the proxy: nothing outside no_proxy is reached without it")
	}
	return ok(name, c.UpstreamProxy.URL)
}

// checkSandboxes looks at those that run: what nobody should forget.
func checkSandboxes(c *config.Config, now time.Time) finding {
	const name = "sandboxes"
	all, err := sandbox.List(c.RunDir)
	if err != nil {
		return warn(name, oneLine(err), "remove what is broken below run_dir")
	}
	var details, fixes []string
	note := func(detail, fix string) {
		details = append(details, detail)
		if !slices.Contains(fixes, fix) {
			fixes = append(fixes, fix)
		}
	}
	for _, info := range all {
		s := newListed(info)
		id := shortID(plain(s.ID))
		switch s.State {
		case sandbox.Unreadable:
			note(fmt.Sprintf("%s: is unreadable: %s", id, oneLine(s.Broken)),
				"remove what is unreadable with openshell doctor --clean")
			continue
		case sandbox.Dead:
			text := id + ": its supervisor is dead"
			if s.Health.LastError != "" {
				text += ": " + oneLine(errors.New(s.Health.LastError))
			}
			note(text, "stop the containers of dead supervisors: they reach nothing any more")
			continue
		}
		if s.permissive() {
			note(id+": "+mode(&s, now), "stop what should not be permissive: what the policy denies is logged and allowed there")
		}
		switch h := s.Health; {
		case h.Warning() != "":
			note(id+": "+h.Warning(), "make room in state_dir, and let it be written to")
		case h.LastError != "":
			note(fmt.Sprintf("%s: %s, %s", id, h.LastError, ago(now.Sub(h.LastErrorAt))),
				"look at "+filepath.Join(c.StateDir, "sandboxes", s.ID, sandbox.LogFile))
		}
		if s.PolicyError != "" {
			note(id+": keeps the last valid policy: "+s.PolicyError, "correct the policy's files")
		}
	}
	if len(details) > 0 {
		return warn(name, strings.Join(details, "; "), strings.Join(fixes, "; "))
	}
	return ok(name, count(len(all), "sandbox runs", "sandboxes run"))
}
