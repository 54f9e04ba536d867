// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// handler is the RuntimeClass's, as the daemon's settings name it.
const handler = "openshell"

// pod is a pod as the kubelet makes it.
type pod struct {
	n      *node
	api    cri.RuntimeServiceClient
	config *cri.PodSandboxConfig
	id     string // of its sandbox container
}

// kubelet connects to the daemon's CRI.
func (n *node) kubelet(t *testing.T) cri.RuntimeServiceClient {
	t.Helper()
	api := cri.NewRuntimeServiceClient(n.dial(t))
	eventually(t, "the runtime and the network are ready", func() bool {
		r, err := api.Status(t.Context(), &cri.StatusRequest{})
		ready := 0
		for _, c := range r.GetStatus().GetConditions() {
			// There are others, which tell of deprecated settings.
			if c.Status && (c.Type == cri.RuntimeReady || c.Type == cri.NetworkReady) {
				ready++
			}
		}
		return err == nil && ready == 2
	})
	return api
}

// newPod describes a pod. annotations are KEY, VALUE pairs, without the prefix.
func (n *node) newPod(t *testing.T, annotations ...string) *pod {
	t.Helper()
	name := n.name("pod")
	logs := filepath.Join(n.dir, "logs", name)
	must(t, os.MkdirAll(logs, 0o700))
	return &pod{n: n, api: n.kubelet(t), config: &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name, Uid: name, Namespace: "default"},
		Hostname:     name,
		LogDirectory: logs,
		DnsConfig:    &cri.DNSConfig{Servers: []string{n.net.DNS().Addr().String()}, Searches: []string{"default.svc.cluster.local"}},
		Annotations:  prefixed(annotations),
		Linux: &cri.LinuxPodSandboxConfig{
			// A child of it would be the kubelet's to remove.
			CgroupParent: "/" + n.namespace + "-pods",
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}}
}

func prefixed(pairs []string) map[string]string {
	out := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out["openshell.ai/"+pairs[i]] = pairs[i+1]
	}
	return out
}

// run starts the pod's sandbox. It is removed when the test ends.
func (p *pod) run(t *testing.T) error {
	t.Helper()
	r, err := p.api.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: p.config, RuntimeHandler: handler})
	if err != nil {
		return err
	}
	p.id = r.PodSandboxId
	t.Cleanup(func() { p.remove(t) })
	return nil
}

// remove stops and removes the pod with its containers.
func (p *pod) remove(t *testing.T) {
	t.Helper()
	if p.id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*patience)
	defer cancel()
	api := cri.NewRuntimeServiceClient(p.n.dial(t))
	if _, err := api.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Errorf("stop the pod: %v", err)
	}
	if _, err := api.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Errorf("remove the pod: %v", err)
	}
	p.id = ""
}

// container adds a container to the pod and starts it.
func (p *pod) container(t *testing.T, name string, annotations []string, argv ...string) (id string, err error) {
	t.Helper()
	r, err := p.api.CreateContainer(t.Context(), &cri.CreateContainerRequest{
		PodSandboxId: p.id, SandboxConfig: p.config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: boxImage},
			Command: argv, LogPath: name + ".log", Annotations: prefixed(annotations),
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			}},
		},
	})
	if err != nil {
		return "", err
	}
	_, err = p.api.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: r.ContainerId})
	return r.ContainerId, err
}

func (p *pod) mustContainer(t *testing.T, name string, argv ...string) (id string) {
	t.Helper()
	id, err := p.container(t, name, nil, argv...)
	if err != nil {
		t.Fatalf("container %s: %v", name, err)
	}
	return id
}

// client runs a command of the client in a container, as a probe would.
func (p *pod) client(t *testing.T, container string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := p.api.ExecSync(ctx, &cri.ExecSyncRequest{
		ContainerId: container, Cmd: append([]string{clientPath}, argv...), Timeout: int64(patience / time.Second),
	})
	must(t, err)
	if len(r.Stdout) == 0 {
		t.Fatalf("exec: %d %s", r.ExitCode, r.Stderr)
	}
	return results(t, string(r.Stdout))[0]
}

// address is the pod's.
func (p *pod) address(t *testing.T) string {
	t.Helper()
	r, err := p.api.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id})
	must(t, err)
	ip := r.GetStatus().GetNetwork().GetIp()
	if ip == "" {
		t.Fatalf("the pod has no address: %v", r.Status)
	}
	return ip
}

// awaitContainer waits until a container is in a state.
func (p *pod) awaitContainer(t *testing.T, id string, state cri.ContainerState) {
	t.Helper()
	eventually(t, fmt.Sprint("container is ", state), func() bool {
		r, err := p.api.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
		return err == nil && r.GetStatus().GetState() == state
	})
}
