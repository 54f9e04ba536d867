// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/process"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/rootfs"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/runtime"
)

// registerTaskService makes the task service known to containerd's shim
// framework, in the place of the runc shim's own.
func registerTaskService() {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			publisher, err := ic.GetByID(plugins.EventPlugin, "publisher")
			if err != nil {
				return nil, err
			}
			stop, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
			if err != nil {
				return nil, err
			}
			sd := stop.(shutdown.Service)
			inner, err := task.NewTaskService(ic.Context, publisher.(shim.Publisher), sd)
			if err != nil {
				return nil, err
			}
			s := &service{TTRPCTaskService: inner, containers: make(map[string]container),
				execs: make(map[execKey][]byte), sandboxes: make(map[*sandbox.Sandbox]struct{})}
			sd.RegisterCallback(s.closeAll)
			return s, nil
		},
	})
}

var (
	_ taskapi.TTRPCTaskService = (*service)(nil)
	_ shim.TTRPCService        = (*service)(nil)
)

// service is the runc shim's task service with a sandbox around its
// containers.
type service struct {
	taskapi.TTRPCTaskService

	mu         sync.Mutex // guards the next three
	containers map[string]container
	execs      map[execKey][]byte // processes that are added and not started, as asked for
	sandboxes  map[*sandbox.Sandbox]struct{}
}

type execKey struct{ container, exec string }

// container is what has to be taken down with a container.
type container struct {
	config *config.Config
	root   string // the low-level runtime's state directory
	rootfs string // mounted here; "" where the engine did it
}

// RegisterTTRPC implements shim.TTRPCService. The same methods are served
// under both versions of the task API's name: they differ in nothing else.
func (s *service) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, s)
	registerTaskV2(server, s)
	return nil
}

// Create prepares the sandbox and the bundle, then lets runc create the
// container. Where it fails, both are as before.
func (s *service) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (_ *taskapi.CreateTaskResponse, err error) {
	defer func() { err = toGRPC(err) }()
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return nil, err
	}
	opts, err := readOptions(r.Options)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(opts.configPath)
	if err != nil {
		return nil, fmt.Errorf("openshell: %w", err)
	}
	if r.Options, err = opts.apply(c); err != nil {
		return nil, err
	}
	root := opts.runc.Root
	if root == "" {
		root = process.RuncRoot
	}
	// It has to be there first: a shim that dies hereafter is cleaned up by it.
	if err := writeNote(r.Bundle, note{Config: opts.configPath, Root: root}); err != nil {
		return nil, err
	}
	k := container{config: c, root: filepath.Join(root, ns)}
	if k.rootfs, err = mountRootfs(r); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(ctx, r.ID, k))
		}
	}()
	if err := runtime.Prepare(ctx, c, k.root, r.Bundle, r.ID, s.open); err != nil {
		return nil, fmt.Errorf("openshell: %w", err)
	}
	resp, err := s.TTRPCTaskService.Create(ctx, r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[r.ID] = k
	return resp, nil
}

// mountRootfs makes the container's root file system before the bundle is
// prepared, which looks into it. The task service then has none to mount.
func mountRootfs(r *taskapi.CreateTaskRequest) (string, error) {
	if len(r.Rootfs) == 0 {
		return "", nil
	}
	dir := filepath.Join(r.Bundle, "rootfs")
	if err := os.Mkdir(dir, 0o711); err != nil && !os.IsExist(err) {
		return "", err
	}
	var mounts []mount.Mount
	for _, m := range r.Rootfs {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	if err := mount.All(mounts, dir); err != nil {
		return "", errors.Join(fmt.Errorf("mount the container's root file system: %w", err),
			mount.UnmountMounts(mounts, dir, 0))
	}
	r.Rootfs = nil
	return dir, nil
}

// open runs a container's sandbox in this process.
func (s *service) open(r sandbox.Request, c *config.Config) (sandbox.Ready, error) {
	sb, err := sandbox.Start(c, r)
	if err != nil {
		return sandbox.Ready{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes[sb] = struct{}{}
	go func() {
		<-sb.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sandboxes, sb)
	}()
	return sb.Ready(), nil
}

// Exec confines a process that joins a running container like its first one.
func (s *service) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (_ *emptypb.Empty, err error) {
	defer func() { err = toGRPC(err) }()
	st, err := s.State(ctx, &taskapi.StateRequest{ID: r.ID})
	if err != nil {
		return nil, err
	}
	confined, err := runtime.ConfineProcess(rootfs.OfProcess(int(st.GetPid())), r.GetSpec().GetValue())
	if err != nil {
		return nil, fmt.Errorf("openshell: %w", err)
	}
	asked := r.Spec.Value
	r.Spec.Value = confined
	resp, err := s.TTRPCTaskService.Exec(ctx, r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.execs[execKey{r.ID, r.ExecID}] = asked
	return resp, nil
}

// Start completes the network of a container that was created. It refuses to
// start a process in a container whose program is not there: openshell-init
// would start, and only then find nothing.
func (s *service) Start(ctx context.Context, r *taskapi.StartRequest) (_ *taskapi.StartResponse, err error) {
	defer func() { err = toGRPC(err) }()
	s.mu.Lock()
	k := s.containers[r.ID]
	asked, ok := s.execs[execKey{r.ID, r.ExecID}]
	delete(s.execs, execKey{r.ID, r.ExecID})
	s.mu.Unlock()
	if r.ExecID == "" && k.config != nil {
		if err := runtime.Admit(ctx, k.config, k.root, r.ID); err != nil {
			return nil, fmt.Errorf("openshell: %w", err)
		}
	}
	if ok {
		st, err := s.State(ctx, &taskapi.StateRequest{ID: r.ID})
		if err != nil {
			return nil, err
		}
		if err := runtime.CheckExec(rootfs.OfProcess(int(st.GetPid())), asked); err != nil {
			return nil, fmt.Errorf("exec failed: %w", err)
		}
	}
	return s.TTRPCTaskService.Start(ctx, r)
}

// Delete takes a deleted container's sandbox down, if it was its last.
func (s *service) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	resp, err := s.TTRPCTaskService.Delete(ctx, r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	maps.DeleteFunc(s.execs, func(k execKey, _ []byte) bool {
		return k.container == r.ID && (k.exec == r.ExecID || r.ExecID == "")
	})
	if r.ExecID != "" {
		s.mu.Unlock()
		return resp, nil
	}
	k, ok := s.containers[r.ID]
	delete(s.containers, r.ID)
	s.mu.Unlock()
	if ok {
		if err := s.close(ctx, r.ID, k); err != nil {
			// The container is gone, and that is what was asked for.
			log.G(ctx).WithError(err).Warn("failed to take down the sandbox")
		}
	}
	return resp, nil
}

func (s *service) close(ctx context.Context, id string, k container) error {
	err := sandbox.Close(ctx, k.config, k.root, id)
	if k.rootfs != "" {
		err = errors.Join(err, mount.UnmountRecursive(k.rootfs, 0))
	}
	return err
}

// closeAll ends every sandbox with the shim.
func (s *service) closeAll(context.Context) error {
	s.mu.Lock()
	sandboxes := slices.Collect(maps.Keys(s.sandboxes))
	s.mu.Unlock()
	for _, sb := range sandboxes {
		sb.Stop()
	}
	return nil
}
