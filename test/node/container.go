// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/sandbox"
)

// Container is an OCI bundle of its own, and the container made from it.
type Container struct {
	World  *World
	ID     string
	Bundle string
	Spec   *specs.Spec
	Begun  bool
	log    *exec.Cmd // the command whose captured output is the container's
}

// containers counts those of all worlds.
var containers atomic.Int64

// Container makes a bundle. The container is deleted when the test ends.
func (w *World) Container(edits ...Edit) *Container {
	w.T.Helper()
	// Cgroups are the whole machine's, and are called by the id.
	id := fmt.Sprintf("%s-%d", binaries.tag, containers.Add(1))
	c := &Container{World: w, ID: id, Bundle: filepath.Join(w.Dir, "bundles", id), Spec: plainSpec()}
	Must(w.T, os.MkdirAll(c.Bundle, 0o755))
	Must(w.T, cloneTree(binaries.template, c.Rootfs()))
	// The image's own roots.
	Must(w.T, os.MkdirAll(filepath.Join(c.Rootfs(), "etc/ssl/certs"), 0o755))
	Must(w.T, CopyFile(w.Net.CACert(), filepath.Join(c.Rootfs(), "etc/ssl/certs/ca-certificates.crt")))
	for _, e := range edits {
		e(c.Spec)
	}
	c.Write()
	w.T.Cleanup(c.remove)
	return c
}

func (c *Container) Rootfs() string { return filepath.Join(c.Bundle, "rootfs") }

func (c *Container) ConfigPath() string { return filepath.Join(c.Bundle, "config.json") }

func (c *Container) Write() {
	c.World.T.Helper()
	text, err := json.MarshalIndent(c.Spec, "", "  ")
	Must(c.World.T, err)
	Must(c.World.T, os.WriteFile(c.ConfigPath(), text, 0o600))
}

// Run runs the container in the foreground to its end.
func (c *Container) Run() Outcome {
	c.World.T.Helper()
	c.Begun = true
	return c.World.OCI("run", "--bundle", c.Bundle, c.ID)
}

// Create makes the container, and must succeed.
func (c *Container) Create(flags ...string) {
	c.World.T.Helper()
	c.Begun = true
	args := append([]string{"--root", c.World.Root, "create", "--bundle", c.Bundle}, flags...)
	c.log = c.World.Begin(append(args, c.ID)...)
	if o := c.World.Finish(c.log); o.Status != 0 {
		c.World.T.Fatalf("create %s: %s", c.ID, o)
	}
}

// Start makes the container and lets it go, and must succeed.
func (c *Container) Start() *Container {
	c.World.T.Helper()
	c.Create()
	c.LetGo()
	return c
}

func (c *Container) LetGo() {
	c.World.T.Helper()
	if o := c.World.OCI("start", c.ID); o.Status != 0 {
		c.World.T.Fatalf("start %s: %s", c.ID, o)
	}
}

// Output is what a container that was created has written so far.
func (c *Container) Output() string { return TextOf(c.log.Stdout) }

// Exec runs a program in the container.
func (c *Container) Exec(argv ...string) Outcome {
	c.World.T.Helper()
	return c.World.OCI(append([]string{"exec", c.ID}, argv...)...)
}

// State is the container's status, or "gone".
func (c *Container) State() string {
	c.World.T.Helper()
	o := c.World.OCI("state", c.ID)
	if o.Status != 0 {
		return "gone"
	}
	var st specs.State
	Must(c.World.T, json.Unmarshal([]byte(o.Stdout), &st))
	return string(st.Status)
}

// PID is the container's first process.
func (c *Container) PID() int {
	c.World.T.Helper()
	o := c.World.OCI("state", c.ID)
	var st specs.State
	Must(c.World.T, json.Unmarshal([]byte(o.Stdout), &st))
	return st.Pid
}

// Delete kills and deletes the container, and must succeed.
func (c *Container) Delete() {
	c.World.T.Helper()
	if o := c.World.OCI("delete", "--force", c.ID); o.Status != 0 {
		c.World.T.Fatalf("delete %s: %s", c.ID, o)
	}
}

// remove deletes the container, where there is one, and waits for the sandbox's
// end.
func (c *Container) remove() {
	if !c.Begun {
		return
	}
	c.World.OCI("delete", "--force", c.ID)
	c.AwaitEnd()
	if c.World.T.Failed() {
		log := c.World.AuditLog(c)
		c.World.T.Logf("end of the log of %s:\n%s", c.ID, log[max(0, len(log)-4000):])
	}
}

// RunPlain runs the container without openshell.
func (c *Container) RunPlain() Outcome {
	c.World.T.Helper()
	cmd := exec.Command(lowLevel, "--root", c.World.Root+"-plain", "run", "--bundle", c.Bundle, c.ID)
	cmd.Stdout, cmd.Stderr = c.World.capture("stdout"), c.World.capture("stderr")
	c.World.Launch(cmd)
	return c.World.Finish(cmd)
}

// BeginExec starts a program in the container without waiting for it.
func (c *Container) BeginExec(argv ...string) *exec.Cmd {
	c.World.T.Helper()
	return c.World.Begin(append([]string{"--root", c.World.Root, "exec", c.ID}, argv...)...)
}

// Stream starts a slow download in the container, of one byte each 10 ms, and
// waits until it is under way.
func (c *Container) Stream(host, bytes string) *exec.Cmd {
	c.World.T.Helper()
	cmd := c.BeginExec(ClientPath, "get", "-t", "2m", "http://"+host+"/drip/"+bytes)
	Eventually(c.World.T, Patience, "a stream from "+host, func() bool { return len(c.World.Net.Saw(host)) > 0 })
	return cmd
}

// KillSupervisor ends the sandbox's supervisor for good, and the keeper that would
// start it again.
func (c *Container) KillSupervisor() {
	c.World.T.Helper()
	var info sandbox.Info
	Eventually(c.World.T, Patience, "the keeper", func() bool { info = c.Info(); return info.Keeper.PID != 0 })
	Must(c.World.T, unix.Kill(info.Keeper.PID, unix.SIGKILL))
	Must(c.World.T, unix.Kill(info.Supervisor.PID, unix.SIGKILL))
	Eventually(c.World.T, Patience, "the supervisor's end", func() bool { return !info.Alive() })
}

// Config reads the bundle's config.json as it is now, without losing digits.
func (c *Container) Config() map[string]any {
	c.World.T.Helper()
	f, err := os.Open(c.ConfigPath())
	Must(c.World.T, err)
	defer f.Close()
	d := json.NewDecoder(f)
	d.UseNumber()
	var config map[string]any
	Must(c.World.T, d.Decode(&config))
	return config
}

// ProcessFile writes a process as containerd and podman do. It asks for all
// that can be asked for.
func (c *Container) ProcessFile(terminal bool, argv ...string) string {
	c.World.T.Helper()
	spec := plainSpec()
	Everything(spec)
	process := *spec.Process
	process.Args, process.Terminal = argv, terminal
	text, err := json.Marshal(process)
	Must(c.World.T, err)
	f := c.World.capture("process")
	_, err = f.Write(text)
	Must(c.World.T, errors.Join(err, f.Close()))
	return f.Name()
}
