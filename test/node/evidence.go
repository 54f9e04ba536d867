// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/test/fakenet"
)

// Proposals reads a policy's proposals for the network as they are on disk.
func (w *World) Proposals(policy string) []learn.Proposal {
	w.T.Helper()
	return w.ProposalsOf(learn.KindNetwork, policy)
}

func (w *World) ProposalsOf(kind, policy string) []learn.Proposal {
	w.T.Helper()
	files, err := filepath.Glob(filepath.Join(w.StateDir, "policies", policy, "proposals", "*.json"))
	Must(w.T, err)
	list := []learn.Proposal{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		Must(w.T, err)
		var p learn.Proposal
		Must(w.T, json.Unmarshal(text, &p))
		if p.Kind == kind {
			list = append(list, p)
		}
	}
	return list
}

// ProposalFor waits for the proposal about a host, as long as it may take to be
// visible while its container runs.
func (w *World) ProposalFor(policy, host string) learn.Proposal {
	w.T.Helper()
	var found learn.Proposal
	Eventually(w.T, Patience, "a proposal for "+host, func() bool {
		i := slices.IndexFunc(w.Proposals(policy), func(p learn.Proposal) bool { return hostOf(p) == host })
		if i >= 0 {
			found = w.Proposals(policy)[i]
		}
		return i >= 0
	})
	return found
}

func hostOf(p learn.Proposal) string { return p.Rule.Endpoints[0].Host }

// Subjects lists what proposals are about: "binary host:port".
func Subjects(list []learn.Proposal) []string {
	var out []string
	for _, p := range list {
		e := p.Rule.Endpoints[0]
		out = append(out, fmt.Sprintf("%s %s:%d", p.Binary, e.Host, e.Ports[0]))
	}
	slices.Sort(out)
	return out
}

// Allows lists the requests that a proposal would allow: "METHOD path".
func Allows(p learn.Proposal) []string {
	var out []string
	for _, r := range p.Rule.Endpoints[0].Rules {
		out = append(out, r.Allow.Method+" "+r.Allow.Path)
	}
	slices.Sort(out)
	return out
}

// Settled returns the proposals when the policy's sandboxes have written down all that they have seen.
func (w *World) Settled(policy string) []learn.Proposal {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), Patience)
	defer cancel()
	Must(w.T, sandbox.Settle(ctx, w.RunDir, policy))
	return w.Proposals(policy)
}

func (c *Container) SandboxID() string { return sandbox.IDFor(c.World.Root, c.ID) }

// AuditLog is the sandbox's log for people.
func (w *World) AuditLog(c *Container) string {
	text, err := os.ReadFile(filepath.Join(w.StateDir, "sandboxes", c.SandboxID(), "openshell.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Event is the part of an OCSF event that tests look at.
type Event struct {
	ClassUID    int    `json:"class_uid"`
	Activity    string `json:"activity_name"`
	Action      string `json:"action"`
	Disposition string `json:"disposition"`
	Detail      string `json:"status_detail"`
	Message     string `json:"message"`
	Dst         struct {
		Domain string `json:"domain"`
		IP     string `json:"ip"`
		Port   int    `json:"port"`
	} `json:"dst_endpoint"`
	Actor struct {
		Process struct {
			Path string `json:"path"`
		} `json:"process"`
	} `json:"actor"`
}

// Events reads the sandbox's OCSF log.
func (w *World) Events(c *Container) []Event {
	w.T.Helper()
	text, err := os.ReadFile(filepath.Join(w.StateDir, "sandboxes", c.SandboxID(), "events.jsonl"))
	Must(w.T, err)
	var list []Event
	for line := range Lines(string(text)) {
		var e Event
		Must(w.T, json.Unmarshal([]byte(line), &e))
		list = append(list, e)
	}
	return list
}

// Denied are the events of what was not let through.
func (w *World) Denied(c *Container) []Event {
	w.T.Helper()
	return slices.DeleteFunc(w.Events(c), func(e Event) bool { return e.Action != "Denied" })
}

// Asked reports whether the name server was asked for a name, or one below it.
func (w *World) Asked(name string) bool {
	return slices.ContainsFunc(w.Net.Queries(), func(q fakenet.Query) bool {
		n := strings.ToLower(q.Name)
		return n == name || strings.HasSuffix(n, "."+name)
	})
}

// Sandboxes are the ids in the run directory.
func (w *World) Sandboxes() []string {
	entries, err := os.ReadDir(filepath.Join(w.RunDir, "sandboxes"))
	if err != nil && !os.IsNotExist(err) {
		w.T.Error(err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// AwaitEnd waits until the container's sandbox is gone, its directory under
// another name too.
func (c *Container) AwaitEnd() {
	c.World.T.Helper()
	isOf := func(name string) bool { return strings.Contains(name, c.SandboxID()) }
	Eventually(c.World.T, Patience, "the end of sandbox "+c.SandboxID(), func() bool {
		return !slices.ContainsFunc(c.World.Sandboxes(), isOf)
	})
}

// Info is what the container's sandbox says of itself.
func (c *Container) Info() sandbox.Info {
	c.World.T.Helper()
	info, err := sandbox.Find(c.World.RunDir, c.ID)
	Must(c.World.T, err)
	return info
}

// Granted lists the paths of a policy's proposals: "r path" or "w path".
func (w *World) Granted(policy string) []string {
	w.T.Helper()
	list := []string{}
	for _, p := range w.ProposalsOf(learn.KindFilesystem, policy) {
		for _, path := range p.Filesystem.ReadOnly {
			list = append(list, "r "+path)
		}
		for _, path := range p.Filesystem.ReadWrite {
			list = append(list, "w "+path)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (w *World) Unseen(origin string) {
	w.T.Helper()
	if seen := w.Net.Saw(origin); len(seen) > 0 {
		w.T.Errorf("%s was reached: %q", origin, seen)
	}
}
