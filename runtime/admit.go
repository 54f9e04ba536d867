// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/sandbox"
)

// AdmitCommand is the argument by which a hook completes the network of a
// container that is created and started in one go.
const AdmitCommand = "admit"

// outerOf reads from a spec where the engine wants the container's network to
// be. command is the one that makes the container: between create and start
// the engine may do more.
func outerOf(spec *specs.Spec, files tree, command string) sandbox.Outer {
	path := networkPath(spec)
	switch {
	case path == nil:
		return sandbox.Outer{Kind: sandbox.OuterHost}
	case *path != "":
		return sandbox.Outer{Kind: sandbox.OuterPath, Path: *path}
	}
	fallback := sandbox.OuterHost
	if hooked(spec.Hooks) || keepsFiles(files) {
		fallback = sandbox.OuterEmpty
	}
	if command == "create" || command == "run" && hooked(spec.Hooks) {
		return sandbox.Outer{Kind: sandbox.OuterLate, Fallback: fallback, Placeholders: !plumbsInHook(spec.Hooks)}
	}
	return sandbox.Outer{Kind: fallback}
}

// hooked reports whether hooks may set up the network before the workload runs.
func hooked(h *specs.Hooks) bool {
	//nolint:staticcheck // SA1019: engines still write prestart hooks
	return h != nil && (len(h.Prestart) > 0 || len(h.CreateRuntime) > 0 || len(h.CreateContainer) > 0)
}

// plumbsInHook tells an engine that calls CNI plugins in a hook, as nerdctl does:
// then it does not look for the devices. docker does, and has none of these hooks;
// its prestart hooks, and those of CDI (createContainer), are for other things.
func plumbsInHook(h *specs.Hooks) bool { return h != nil && len(h.CreateRuntime) > 0 }

// keepsFiles tells an engine that manages its containers' networks by the files
// that it keeps for each: where docker or podman put no device into a namespace,
// there is to be no network. Without one, podman has no resolv.conf.
func keepsFiles(files tree) bool {
	mounts := func(p string) bool {
		_, ok := files.engineFile(p)
		return ok
	}
	return mounts(hostsFile) && (mounts(resolvConf) || mounts("/etc/hostname"))
}

// Admit completes the network of a container that is about to be started, where
// the engine has put it together only since the container was created. root is
// the low-level runtime's state directory.
func Admit(ctx context.Context, c *config.Config, root, id string) error {
	err := sandbox.CompleteNetwork(ctx, c, root, id, func(k sandbox.Container) (sandbox.Resolver, error) {
		var mounts []specs.Mount
		if err := json.Unmarshal(k.Mounts, &mounts); err != nil {
			return sandbox.Resolver{}, fmt.Errorf("mounts of the container: %w", err)
		}
		files, err := treeAt(k.Rootfs, k.Bundle, mounts)
		if err != nil {
			return sandbox.Resolver{}, err
		}
		defer files.close()
		return resolverOf(files), nil
	})
	if err != nil {
		return fmt.Errorf("complete the network of container %s: %w", id, err)
	}
	return nil
}

// start completes the container's network, and lets it go.
func (r *Runtime) start(ctx context.Context, inv Invocation) (int, error) {
	if err := Admit(ctx, r.config, r.root(inv), inv.ID); err != nil {
		return 1, err
	}
	return r.replace(inv.Args)
}

// admissionHook returns the hook that does for `run` what start does after
// create. It has to come after the engine's.
func admissionHook(root, id string) (*specs.Hook, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return !strings.HasPrefix(e, "PATH=") && !strings.HasPrefix(e, "OPENSHELL_")
	})
	return &specs.Hook{Path: self, Args: []string{filepath.Base(self), "--root", root, AdmitCommand, id}, Env: env}, nil
}

// addHook is the modifier for it.
func addHook(spec *specs.Spec, p preparation) error {
	if p.hook != nil {
		spec.Hooks.CreateRuntime = append(spec.Hooks.CreateRuntime, *p.hook)
	}
	return nil
}

// isAdmission recognises the hook of an earlier preparation.
func isAdmission(h specs.Hook) bool {
	return len(h.Args) == 5 && h.Args[1] == "--root" && h.Args[3] == AdmitCommand
}
