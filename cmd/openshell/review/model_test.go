// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"openshell.ai/openshell/cmd/openshell/decide"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/state"
)

var start = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// session is the interface of one reviewer, without a terminal: commands run at once.
type session struct {
	t     *testing.T
	m     model
	store *state.Store
	quit  bool
	// editor makes something of a draft.
	editor func(text string) string
}

func open(t *testing.T, width, height int, denials ...learn.Denial) *session {
	t.Helper()
	dir := t.TempDir()
	c := &config.Config{StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), PolicyDir: filepath.Join(dir, "policies")}
	s := &session{t: t, store: state.Open(c.StateDir)}
	s.learn("r1", denials...)
	d := &desk{ctx: t.Context(), policy: "agent", drafts: t.TempDir(), poll: func() tea.Cmd { return nil },
		reviewer: &decide.Reviewer{Config: c, Store: s.store, By: "alice"}}
	s.m = newModel(d)
	s.run(s.m.Init())
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	return s
}

func (s *session) learn(run string, denials ...learn.Denial) {
	s.t.Helper()
	l := learn.Start(s.store, learn.Run{ID: run, Sandbox: "sandbox-" + run, Image: "alpine:3", Policy: "agent", Mode: learn.ModePermissive, Started: start}, learn.Options{})
	for _, d := range denials {
		l.Observe(d)
	}
	if err := l.Close(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *session) send(msg tea.Msg) {
	if d, ok := msg.(drafted); ok && d.err == nil {
		text, err := os.ReadFile(d.path)
		if err == nil {
			err = os.WriteFile(d.path, []byte(s.editor(string(text))), 0o600)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		msg = s.m.desk.finish(d, nil)
	}
	next, cmd := s.m.Update(msg)
	s.m = next.(model)
	s.run(cmd)
}

func (s *session) run(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.QuitMsg:
		s.quit = true
	case tea.BatchMsg:
		for _, c := range msg {
			s.run(c)
		}
	default:
		s.send(msg)
	}
}

var named = map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "up": tea.KeyUp, "down": tea.KeyDown, "end": tea.KeyEnd, "pgdown": tea.KeyPgDown}

// press sends keys: names of keys, or text to type.
func (s *session) press(keys ...string) *session {
	for _, k := range keys {
		if code, ok := named[k]; ok {
			s.send(tea.KeyPressMsg{Code: code})
			continue
		}
		for _, r := range k {
			s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
	return s
}

// screen is what there is to see, which always fits.
func (s *session) screen() string {
	s.t.Helper()
	text := ansi.Strip(s.m.View().Content)
	lines := strings.Split(text, "\n")
	if len(lines) > s.m.height {
		s.t.Errorf("%d lines on a screen of %d:\n%s", len(lines), s.m.height, text)
	}
	for _, line := range lines {
		if w := ansi.StringWidth(line); w > s.m.width {
			s.t.Errorf("%d cells on a screen of %d: %q", w, s.m.width, line)
		}
	}
	return text
}

func (s *session) shows(parts ...string) *session {
	s.t.Helper()
	screen := s.screen()
	for _, part := range parts {
		if !strings.Contains(screen, part) {
			s.t.Errorf("%q is missing on\n%s", part, screen)
		}
	}
	return s
}

func (s *session) hides(parts ...string) *session {
	s.t.Helper()
	screen := s.screen()
	for _, part := range parts {
		if strings.Contains(screen, part) {
			s.t.Errorf("%q should not be on\n%s", part, screen)
		}
	}
	return s
}

// proposal is the one for a host.
func (s *session) proposal(host string) learn.Proposal {
	s.t.Helper()
	all, err := learn.List(s.store, "agent")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range all {
		if p.Rule.Endpoints[0].Host == host {
			return p
		}
	}
	s.t.Fatalf("no proposal for %s", host)
	return learn.Proposal{}
}

func denied(host string, port uint16) learn.Denial {
	return learn.Denial{Time: start, Permissive: true, Layer: "l4", Host: host, Port: port, Binary: "/usr/bin/curl", SHA256: "aa",
		Reason: fmt.Sprintf("endpoint %s:%d is not allowed by any policy", host, port)}
}

func request(host, method, path string) learn.Denial {
	d := denied(host, 443)
	d.Kind, d.TLS, d.Method, d.Path, d.Status = learn.KindHTTP, "terminated", method, path, 200
	return d
}

func TestReview(t *testing.T) {
	s := open(t, 80, 24, request("api.example", "GET", "/a"), request("api.example", "DELETE", "/b"), denied("db.example", 5432))
	s.shows("review agent · 2 pending · only pending", "api.example:443", "db.example:5432", "0.65", "1 of 1",
		"/usr/bin/curl to", "Approval would change:", "+ /usr/bin/curl", "a approve", "q quit")
	if p := s.m.selected(); p.Rule.Endpoints[0].Host != "api.example" {
		t.Fatalf("selected %s", p.RuleName)
	}
	s.press("a").shows("approve "+s.proposal("api.example").ID+" (+2 -0)?", "y: yes")
	s.press("n").shows("nothing was done")
	if p := s.proposal("api.example"); p.Status != learn.StatusPending {
		t.Errorf("approved without a yes: %s", p.Status)
	}
	s.press("a", "y").shows("approved "+s.proposal("api.example").ID, "+2 -0", "1 pending · 1 approved")
	if p := s.proposal("api.example"); p.Status != learn.StatusApproved || p.DecidedBy != "alice" {
		t.Errorf("%s by %q", p.Status, p.DecidedBy)
	}
	// The next one has its place.
	s.press("down").shows("db.example:5432", "Port 5432 is a database").hides("api.example")
	s.press("r").shows("why is "+s.proposal("db.example").ID+" not wanted?", "enter accept")
	s.press("enter").shows("say why")
	s.press("no databases: jqka", "enter").shows("rejected "+s.proposal("db.example").ID, "nothing of this kind")
	if p := s.proposal("db.example"); p.Status != learn.StatusRejected || p.RejectionReason != "no databases: jqka" {
		t.Errorf("%s: %q", p.Status, p.RejectionReason)
	}
	s.press("f").shows("only approved", "api.example:443", "by alice")
	s.press("a").shows("is approved already")
	s.press("r").shows("undo that first")
	s.press("u").shows("take back what was approved of").press("y").shows("undone " + s.proposal("api.example").ID + ", +0 -2")
	if p := s.proposal("api.example"); p.Status != learn.StatusPending {
		t.Errorf("after undo: %s", p.Status)
	}
	s.press("fff").shows("api.example:443", "example:5432", "STATUS", "rejected").hides("only")
	s.press("u").shows("is not approved")
	if s.press("q"); !s.quit {
		t.Error("q does not quit")
	}
}

func TestMovingAndSearching(t *testing.T) {
	var denials []learn.Denial
	for i := range 40 {
		denials = append(denials, denied(fmt.Sprintf("host%02d.example", i), 443))
	}
	denials = append(denials, request("zoo.example", "GET", "/penguins/all"))
	s := open(t, 80, 24, denials...)
	s.shows("41 pending", "host00.example").hides("host39.example")
	s.press("G").shows("zoo.example:443", "GET /penguins")
	s.press("g", "jjj", "k").shows("host02.example:443 is not allowed")
	s.press("/", "PENGUINS", "enter").shows("with PENGUINS", "zoo.example").hides("host0")
	s.press("/", "x", "enter").shows("nothing of this kind") // PENGUINSx
	s.press("esc").shows("host00").hides("with PENG")
	s.press("/", "abc", "esc").hides("with abc")
	s.press("enter").shows("Evidence: ").hides("SEEN ").press("pgdown").shows("SHA-256", "Digest")
	s.press("esc").shows("SEEN").press("?").shows("keys", "take back exactly", "any key goes back").press("q").shows("SEEN")
	if s.quit {
		t.Error("leaving the help quits")
	}
	first := s.screen()
	if s.press("pgdown"); s.screen() == first {
		t.Error("the details do not scroll")
	}
	s.press("A").shows("approve 41 proposals?").press("y").shows("· 41 approved", "approved 41 proposals, +41 -0")
	s.press("A").shows("nothing that is listed waits for approval")
}

func TestProposalsAppearAndChangeMeanwhile(t *testing.T) {
	s := open(t, 80, 24)
	s.shows("no proposals", "openshell.ai/policy=agent").press("a", "e", "r", "u", "j", "enter", "enter")
	s.learn("r2", denied("a.example", 443), denied("b.example", 443))
	s.send(pollDue{})
	s.shows("a.example:443", "b.example:443", "1 of 2")
	stamp := s.m.stamp
	s.press("f") // another filter must not be undone by a poll that brings nothing
	s.send(pollDue{})
	if s.m.stamp != stamp {
		t.Error("something was read again without a change")
	}
	s.press("ffff", "j")
	if p := s.m.selected(); p.Rule.Endpoints[0].Host != "b.example" {
		t.Fatalf("selected %s", p.RuleName)
	}

	// What is approved is what was looked at when it was asked for.
	s.press("a").shows("approve " + s.proposal("b.example").ID)
	s.learn("r3", request("b.example", "GET", "/x"))
	s.press("y").shows("its rule has changed: look at it again")
	if p := s.proposal("b.example"); p.Status != learn.StatusPending {
		t.Errorf("status %s", p.Status)
	}
	if p := s.m.selected(); p.Rule.Endpoints[0].Host != "b.example" {
		t.Errorf("the cursor has moved to %s", p.RuleName)
	}
	// What is rejected is what was selected when the reason was asked for.
	s.press("g", "r", "mine")
	a := s.proposal("a.example")
	if _, err := learn.Approve(s.store, "agent", []string{a.ID}, "bob"); err != nil {
		t.Fatal(err)
	}
	s.m.filter = learn.StatusPending
	s.send(pollDue{})
	s.press("enter").shows("is approved: undo that first")
	if p := s.proposal("b.example"); p.Status != learn.StatusPending {
		t.Errorf("another one is %s", p.Status)
	}
	// And now it has been looked at.
	s.shows("GET https://b.example:443/x").press("a", "y").shows("approved")
}

func TestEdit(t *testing.T) {
	s := open(t, 100, 40, request("api.example", "GET", "/a"), request("api.example", "DELETE", "/b"))
	id := s.proposal("api.example").ID
	s.editor = func(text string) string {
		if !strings.HasPrefix(text, draftHeader) {
			t.Errorf("draft %q", text)
		}
		return text
	}
	s.press("e").shows("nothing was changed, and nothing approved")
	s.editor = func(string) string { return "" }
	s.press("e").shows("nothing was changed, and nothing approved")
	s.editor = func(text string) string { return strings.Replace(text, "path: /a", "path: /**", 1) }
	s.press("e").shows("e edits it again", "within what is proposed")
	s.editor = func(text string) string {
		if !strings.Contains(text, "path: /**") {
			t.Error("the draft is lost")
		}
		return strings.NewReplacer("path: /**", "path: /a", "      - allow:\n          method: DELETE\n          path: /b\n", "").Replace(text)
	}
	s.press("e").shows("approve this of "+id+" (+1 -0)?", "Of "+id+", this is to be approved", "+ /usr/bin/curl GET https://api.example:443/a").hides("DELETE")
	s.press("n").shows("DELETE") // the proposal is back
	s.editor = func(text string) string { return text }
	s.press("e", "y").shows("approved in part "+id, "1 approved")
	p := s.proposal("api.example")
	if p.Status != learn.StatusApproved || p.Tightened == nil || len(p.Tightened.Rule.Endpoints[0].Rules) != 1 {
		t.Errorf("stored %+v", p)
	}
	s.press("f").shows("In force, as it was tightened:")
}

func TestEditorThatFails(t *testing.T) {
	s := open(t, 80, 24, denied("a.example", 443))
	s.m.desk.editor = []string{"/nonexistent/editor", "-w"}
	s.send(s.m.desk.finish(drafted{}, errors.New("no such file")))
	s.shows("/nonexistent/editor: no such file", "$EDITOR")
	for _, c := range []struct{ visual, editor, want string }{{"", "", "vi"}, {"", " ", "vi"}, {"", "code -w", "code -w"}, {"emacs", "ed", "emacs"}} {
		got := editorFrom(func(name string) string { return map[string]string{"VISUAL": c.visual, "EDITOR": c.editor}[name] })
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// What is in the way of a decision is said, and nothing is decided.
func TestMaximum(t *testing.T) {
	s := open(t, 80, 24, denied("evil.example", 443))
	maximum := filepath.Join(t.TempDir(), "maximum.yaml")
	if err := os.WriteFile(maximum, []byte("version: 1\nnetwork_policies: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.m.desk.reviewer.Config.MaximumPolicy = maximum
	s.press("a", "y").shows("is not approved", "exceeds the node's maximum")
	if p := s.proposal("evil.example"); p.Status != learn.StatusPending {
		t.Errorf("status %s", p.Status)
	}
	if err := os.Remove(maximum); err != nil {
		t.Fatal(err)
	}
	s.m.differences = map[string]difference{}
	s.press("x").shows("cannot be told", "maximum_policy")
	s.press("a").shows("maximum_policy")
}

func TestHostileText(t *testing.T) {
	evil := denied("a.example", 443)
	evil.Reason = "\x1b]0;owned\a\n\u202eevil\x9b31m"
	evil.Ancestors = []string{"/tmp/\x1b[2J"}
	s := open(t, 120, 60, evil)
	content := s.m.View().Content
	for _, bad := range []string{"\x1b]", "\x1b[2J", "\u202e", "\x9b", "\a"} {
		if strings.Contains(content, bad) {
			t.Errorf("%q is on the screen", bad)
		}
	}
	s.shows("owned")
}

// Any size is drawn within its bounds, before and after anything is known.
func TestSizes(t *testing.T) {
	var denials []learn.Denial
	for i := range 5 {
		denials = append(denials, request(strings.Repeat("long-name.", i*4)+"example", "GET", "/"+strings.Repeat("p", 300)))
	}
	s := open(t, 80, 24, denials...)
	for _, size := range [][2]int{{1, 1}, {20, 5}, {40, 10}, {41, 11}, {80, 24}, {81, 25}, {200, 60}, {500, 12}, {40, 200}} {
		s.send(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for _, keys := range [][]string{nil, {"j"}, {"enter"}, {"esc"}, {"a"}, {"n"}, {"r"}, {"esc"}, {"/"}, {"esc"}, {"?"}, {"x"}} {
			s.press(keys...)
			s.screen()
		}
	}
	if unknown := newModel(s.m.desk); unknown.screen() != "" {
		t.Error("something is drawn before the size is known")
	}
}

// The model is a value: an update must not reach into an earlier one.
func TestUpdateLeavesTheModelAlone(t *testing.T) {
	s := open(t, 80, 24, denied("a.example", 443), denied("b.example", 443))
	before, copied := s.m, append([]int{}, s.m.listed...)
	s.press("/", "b.example", "enter")
	if !reflect.DeepEqual(before.listed, copied) {
		t.Error("the earlier model has changed")
	}
}

func TestRunNeedsATerminal(t *testing.T) {
	err := Run(t.Context(), strings.NewReader(""), &strings.Builder{}, nil, "agent")
	if err == nil || !strings.Contains(err.Error(), "openshell proposals agent") {
		t.Errorf("%v", err)
	}
}
