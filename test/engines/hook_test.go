// SPDX-License-Identifier: Apache-2.0

package engines_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// hook is an engine that plumbs its containers' network namespaces in a hook, as
// nerdctl does, with the bridge, host-local and portmap plugins of CNI.
type hook struct{}

const hookSubnet = "10.4.0.0/24"

func (hook) log(*node) string { return "" }

func (hook) boot(t *testing.T, n *node) {
	t.Helper()
	rootfs := filepath.Join(n.dir, "rootfs")
	must(t, os.Mkdir(rootfs, 0o755))
	n.mustRun(t, n.on("tar", "-C", rootfs, "-xf", built.image))
	// In the bridge plugin's place, which forgets its rule where the namespace is
	// gone by the time of DEL: so it is in a poststop hook.
	n.mustRun(t, n.on("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", hookSubnet, "!", "-d", hookSubnet, "-j", "MASQUERADE"))
}

// hooked is what the hook of a container is told in its environment.
type hooked struct {
	Command string // of CNI: ADD or DEL
	Publish string
	Dir     string // of the leases
}

const hookVariable = "OPENSHELL_TEST_HOOK"

func isHook() bool { return os.Getenv(hookVariable) != "" }

func (h hooked) spec() (specs.Hook, error) {
	self, err := os.Executable()
	if err != nil {
		return specs.Hook{}, err
	}
	text, err := json.Marshal(h)
	return specs.Hook{Path: self, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", hookVariable + "=" + string(text)}}, err
}

// runHook is the hook's program.
func runHook() int {
	var h hooked
	var state specs.State
	err := json.Unmarshal([]byte(os.Getenv(hookVariable)), &h)
	if err == nil {
		err = json.NewDecoder(os.Stdin).Decode(&state)
	}
	if err == nil {
		err = h.run(state)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hook:", err)
		return 1
	}
	return 0
}

func (h hooked) run(state specs.State) error {
	bridge := map[string]any{
		"cniVersion": "0.4.0", "name": "nerd", "type": "bridge", "bridge": "nerdctl0", "isGateway": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": h.Dir, "routes": []any{map[string]string{"dst": "0.0.0.0/0"}},
			"ranges": []any{[]any{map[string]string{"subnet": hookSubnet}}}},
	}
	portmap := map[string]any{"cniVersion": "0.4.0", "name": "nerd", "type": "portmap", "snat": true}
	publish, protocol, _ := strings.Cut(h.Publish, "/")
	if host, container, ok := strings.Cut(publish, ":"); ok {
		hostPort, err := strconv.Atoi(host)
		if err != nil {
			return err
		}
		port, err := strconv.Atoi(container)
		if err != nil {
			return err
		}
		portmap["runtimeConfig"] = map[string]any{"portMappings": []any{
			map[string]any{"hostPort": hostPort, "containerPort": port, "protocol": cmp.Or(protocol, "tcp")}}}
	}
	if h.Command == "DEL" {
		if _, err := h.plugin(state, portmap); err != nil {
			return err
		}
		_, err := h.plugin(state, bridge)
		return err
	}
	result, err := h.plugin(state, bridge)
	if err != nil {
		return err
	}
	portmap["prevResult"] = json.RawMessage(result)
	_, err = h.plugin(state, portmap)
	return err
}

// plugin calls a CNI plugin as its specification says.
func (h hooked) plugin(state specs.State, config map[string]any) ([]byte, error) {
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join("/usr/lib/cni", config["type"].(string)))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+h.Command, "CNI_CONTAINERID="+state.ID, "CNI_IFNAME=eth0",
		"CNI_PATH=/usr/lib/cni", fmt.Sprintf("CNI_NETNS=/proc/%d/ns/net", state.Pid))
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", config["type"], h.Command, err, out)
	}
	return out, nil
}

func (h hook) command(n *node, o options, argv ...string) *exec.Cmd {
	bundle := filepath.Join(n.dir, "bundles", o.name)
	if err := h.write(n, o, bundle, argv); err != nil {
		return exec.Command("false", err.Error())
	}
	if !o.detach {
		return n.on("openshell", "run", "--bundle", bundle, o.name)
	}
	return n.on("sh", "-ec", `openshell create --bundle "$1" "$2" </dev/null >"$1/log" 2>&1; openshell start "$2"`, "sh", bundle, o.name)
}

func (h hook) remove(n *node, name string) *exec.Cmd {
	return n.on("openshell", "delete", "--force", name)
}

func (h hook) write(n *node, o options, bundle string, argv []string) error {
	if err := os.MkdirAll(bundle, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(n.dir, "rootfs"), filepath.Join(bundle, "rootfs")).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	spec, err := h.spec(n, o, argv)
	if err != nil {
		return err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
}

func (h hook) spec(n *node, o options, argv []string) (*specs.Spec, error) {
	s := &specs.Spec{
		Version: specs.Version,
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: argv, Env: []string{"PATH=/bin:/usr/bin"}, Cwd: "/"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + built.tag + "/" + o.name,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace}},
			Resources:   &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
		Annotations: map[string]string{},
	}
	for _, a := range o.annotations {
		key, value, _ := strings.Cut(a, "=")
		s.Annotations[key] = value
	}
	if o.network == "host" {
		return s, nil
	}
	network := specs.LinuxNamespace{Type: specs.NetworkNamespace}
	if other, ok := strings.CutPrefix(o.network, "container:"); ok {
		pid, err := h.pid(n, other)
		if err != nil {
			return nil, err
		}
		network.Path = fmt.Sprintf("/proc/%d/ns/net", pid)
		s.Linux.Namespaces = append(s.Linux.Namespaces, network)
		return s, nil
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, network)
	s.Hooks = &specs.Hooks{}
	if o.network == "none" { // nerdctl's hook runs all the same, and does nothing
		s.Hooks.CreateRuntime = []specs.Hook{{Path: "/bin/true"}}
		return s, nil
	}
	wanted := hooked{Command: "ADD", Publish: o.publish, Dir: filepath.Join(n.dir, "leases")}
	add, err := wanted.spec()
	if err != nil {
		return nil, err
	}
	wanted.Command = "DEL"
	del, err := wanted.spec()
	s.Hooks.CreateRuntime, s.Hooks.Poststop = []specs.Hook{add}, []specs.Hook{del}
	return s, err
}

func (h hook) pid(n *node, name string) (int, error) {
	out, err := n.on("openshell", "state", name).Output()
	if err != nil {
		return 0, err
	}
	var state specs.State
	err = json.Unmarshal(out, &state)
	return state.Pid, err
}
