package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"openshell.ai/openshell/learn"
	"openshell.ai/openshell/sandbox"
	"openshell.ai/openshell/test/fakenet"
)

// proposals reads a policy's proposals for the network as they are on disk.
func (w *world) proposals(policy string) []learn.Proposal {
	w.t.Helper()
	return w.proposalsOf(learn.KindNetwork, policy)
}

func (w *world) proposalsOf(kind, policy string) []learn.Proposal {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.stateDir, "policies", policy, "proposals", "*.json"))
	must(w.t, err)
	list := []learn.Proposal{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(w.t, err)
		var p learn.Proposal
		must(w.t, json.Unmarshal(text, &p))
		if p.Kind == kind {
			list = append(list, p)
		}
	}
	return list
}

// proposalFor waits for the proposal about a host, as long as it may take to be
// visible while its container runs.
func (w *world) proposalFor(policy, host string) learn.Proposal {
	w.t.Helper()
	var found learn.Proposal
	eventually(w.t, patience, "a proposal for "+host, func() bool {
		i := slices.IndexFunc(w.proposals(policy), func(p learn.Proposal) bool { return hostOf(p) == host })
		if i >= 0 {
			found = w.proposals(policy)[i]
		}
		return i >= 0
	})
	return found
}

func hostOf(p learn.Proposal) string { return p.Rule.Endpoints[0].Host }

// subjects lists what proposals are about: "binary host:port".
func subjects(list []learn.Proposal) []string {
	var out []string
	for _, p := range list {
		e := p.Rule.Endpoints[0]
		out = append(out, fmt.Sprintf("%s %s:%d", p.Binary, e.Host, e.Ports[0]))
	}
	slices.Sort(out)
	return out
}

// allows lists the requests that a proposal would allow: "METHOD path".
func allows(p learn.Proposal) []string {
	var out []string
	for _, r := range p.Rule.Endpoints[0].Rules {
		out = append(out, r.Allow.Method+" "+r.Allow.Path)
	}
	slices.Sort(out)
	return out
}

// settled gives evidence that should not become a proposal the time to become
// one all the same.
func (w *world) settled(policy string) []learn.Proposal {
	w.t.Helper()
	time.Sleep(1500 * time.Millisecond)
	return w.proposals(policy)
}

func (c *container) sandboxID() string { return sandbox.IDFor(c.w.root, c.id) }

// auditLog is the sandbox's log for people.
func (w *world) auditLog(c *container) string {
	text, err := os.ReadFile(filepath.Join(w.stateDir, "sandboxes", c.sandboxID(), "openshell.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// event is the part of an OCSF event that tests look at.
type event struct {
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

// events reads the sandbox's OCSF log.
func (w *world) events(c *container) []event {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(w.stateDir, "sandboxes", c.sandboxID(), "events.jsonl"))
	must(w.t, err)
	var list []event
	for line := range linesOf(string(text)) {
		var e event
		must(w.t, json.Unmarshal([]byte(line), &e))
		list = append(list, e)
	}
	return list
}

// denied are the events of what was not let through.
func (w *world) denied(c *container) []event {
	w.t.Helper()
	return slices.DeleteFunc(w.events(c), func(e event) bool { return e.Action != "Denied" })
}

// asked tells whether the name server was asked for a name, or one below it.
func (w *world) asked(name string) bool {
	return slices.ContainsFunc(w.net.Queries(), func(q fakenet.Query) bool {
		n := strings.ToLower(q.Name)
		return n == name || strings.HasSuffix(n, "."+name)
	})
}

// sandboxes are the ids in the run directory.
func (w *world) sandboxes() []string {
	entries, err := os.ReadDir(filepath.Join(w.runDir, "sandboxes"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Error(err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// awaitEnd waits until the container's sandbox is gone, and reports where it
// does not go.
func (c *container) awaitEnd() {
	c.w.t.Helper()
	deadline := time.Now().Add(patience)
	for slices.Contains(c.w.sandboxes(), c.sandboxID()) {
		if time.Now().After(deadline) {
			c.w.t.Errorf("sandbox %s does not end", c.sandboxID())
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// info is what the container's sandbox says of itself.
func (c *container) info() sandbox.Info {
	c.w.t.Helper()
	info, err := sandbox.Find(c.w.runDir, c.id)
	must(c.w.t, err)
	return info
}
