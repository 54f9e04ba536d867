// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"openshell.ai/openshell/annotations"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/confine"
	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/libexec"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/validname"
)

// Prepare opens the sandbox of a container that is about to be created and
// rewrites its bundle for it. root is the low-level runtime's state directory,
// start makes the sandbox where the container does not join one.
// Before the container is started, Admit has to be called.
// Where it fails, nothing is left behind.
func Prepare(ctx context.Context, c *config.Config, root, bundle, id string, start sandbox.Starter) error {
	return prepare(ctx, c, root, bundle, id, "create", false, start)
}

// prepare is Prepare for any command that makes a container. attended says that
// openshell-init stays.
func prepare(ctx context.Context, c *config.Config, root, bundle, id, command string, attended bool,
	start sandbox.Starter) (err error) {
	if err := checkID(id); err != nil {
		return err
	}
	container := sandbox.Container{ID: id, Root: root, Bundle: bundle}
	if err := container.ClaimBundle(ctx, c.RunDir, os.Getpid()); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			container.ReleaseBundle(c.RunDir)
		}
	}()
	file := filepath.Join(bundle, "config.json")
	doc, spec, err := loadSpec(file)
	if err != nil {
		return err
	}
	init, err := libexec.Find(confine.InitName)
	if err != nil {
		return err
	}
	files, err := newTree(bundle, spec)
	if err != nil {
		return err
	}
	defer files.close()
	views, err := check(spec, files, thisHost(c, bundle, root))
	if err != nil {
		return err
	}
	if err := files.checkProgram(spec.Process); err != nil {
		return err
	}
	request, err := newRequest(c, spec, files, container, command)
	if err != nil {
		return err
	}
	p := preparation{launcher: init, views: views, seccomp: c.Seccomp.DefaultProfile, attended: attended}
	request.Stores = files.trustStores(spec.Process)
	destinations := []string{confine.Dir, sandbox.TrustDir}
	for _, s := range request.Stores {
		if s.Kind.IsDir() {
			destinations = append(destinations, s.Target)
		}
	}
	paths, err := files.mountPoints(destinations...)
	if err != nil {
		return err
	}
	if err := request.Container.MakeMountPoints(c.RunDir, files.root, request.Creator, paths); err != nil {
		return err
	}
	p.trustDir, request.Stores = files.mountable(request.Stores)
	if p.ready, err = sandbox.Open(ctx, c, request, start); err != nil {
		return errors.Join(err, request.Container.RemoveMountPoints(c.RunDir))
	}
	err = files.checkRequired(p.ready.Required)
	if err == nil && command == "run" && request.Outer.Kind == sandbox.OuterLate {
		p.hook, err = admissionHook(root, id)
	}
	if err == nil {
		p.profile, err = writeProfile(p.ready.Confine, id, spec.Linux.Seccomp)
	}
	if err == nil {
		err = writeSpec(file, doc, spec, p)
	}
	if err != nil {
		return errors.Join(err, sandbox.Close(ctx, c, root, id), request.Container.RemoveMountPoints(c.RunDir))
	}
	return nil
}

func writeSpec(file string, doc document, spec *specs.Spec, p preparation) error {
	if err := rewrite(doc, spec, p); err != nil {
		return err
	}
	data, err := doc.bytes()
	if err != nil {
		return fmt.Errorf("rewrite config.json: %w", err)
	}
	if err := fileio.Update(file, data); err != nil {
		return fmt.Errorf("rewrite config.json: %w", err)
	}
	return nil
}

// loadSpec reads a config.json, without the edits of an earlier preparation.
func loadSpec(file string) (document, *specs.Spec, error) {
	data, err := fileio.ReadFile(file, maxSpec)
	if err != nil {
		return document{}, nil, fmt.Errorf("read bundle: %w", err)
	}
	doc, err := parseDocument(data)
	if err != nil {
		return document{}, nil, fmt.Errorf("%s: %w", file, err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return document{}, nil, fmt.Errorf("%s: %w", file, err)
	}
	if spec.Process == nil || spec.Linux == nil || spec.Root == nil {
		return document{}, nil, fmt.Errorf("%s: a Linux container needs process, root and linux", file)
	}
	if err := restore(doc, &spec); err != nil {
		return document{}, nil, fmt.Errorf("%s: %w", file, err)
	}
	return doc, &spec, nil
}

// checkID refuses ids that would name something outside the directories made
// for them. runc takes [\w+-.]+ only.
func checkID(id string) error {
	if id == "" {
		return errors.New("no container id given")
	}
	if len(id) > 1024 || id == "." || id == ".." || strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_+-.", r))
	}) {
		return fmt.Errorf("container id %q: only letters, digits and _+-. are allowed", id)
	}
	return nil
}

func newRequest(c *config.Config, spec *specs.Spec, files tree, container sandbox.Container,
	command string) (sandbox.Request, error) {
	asked, err := annotations.Parse(spec.Annotations)
	if err != nil {
		return sandbox.Request{}, err
	}
	ttl, onExpiry, err := c.Resolve(asked)
	if err != nil {
		return sandbox.Request{}, err
	}
	container.Image, container.Rootfs = imageOf(spec.Annotations), files.location
	r := sandbox.Request{
		ID: sandbox.IDFor(container.Root, container.ID), Policy: asked.Policy, PolicyNamed: asked.Policy != "",
		Permissive: asked.Permissive, TTL: ttl, OnExpiry: onExpiry,
		Said: said(spec.Annotations), Cgroup: spec.Linux.CgroupsPath,
		Outer: outerOf(spec, files, command), User: userNamespaceOf(spec), DNS: resolverOf(files), Creator: os.Getpid(),
		Container: container,
	}
	r.HostNetwork = r.Outer.Kind == sandbox.OuterHost && networkPath(spec) == nil
	if r.Policy == "" {
		r.Policy = policyNameFor(container.ID)
	}
	if r.Outer.Kind == sandbox.OuterLate {
		if r.Container.Mounts, err = json.Marshal(spec.Mounts); err != nil {
			return sandbox.Request{}, err
		}
	}
	return r, nil
}

// said returns the annotations that are openshell's.
func said(all map[string]string) map[string]string {
	own := maps.Clone(all)
	maps.DeleteFunc(own, func(key, _ string) bool { return !strings.HasPrefix(key, annotations.Prefix) })
	return own
}

// policyNameFor is the name of a container's own policy: its id, as far as
// policy names allow.
func policyNameFor(id string) string {
	name := strings.ReplaceAll(id, "+", "_")
	name = strings.TrimLeft(name, "_-.")
	if len(name) > 128 {
		name = name[:128]
	}
	if validname.Check(name) != nil {
		return "container"
	}
	return name
}

// imageOf finds the image's name in what engines annotate.
func imageOf(a map[string]string) string {
	for _, key := range []string{
		"io.kubernetes.cri.image-name", "org.opencontainers.image.ref.name", "io.podman.annotations.image-name",
		"nerdctl/image-name", "io.kubernetes.cri-o.ImageName",
	} {
		if a[key] != "" {
			return a[key]
		}
	}
	return ""
}
