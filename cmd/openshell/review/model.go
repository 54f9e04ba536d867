// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"charm.land/bubbles/v2/key"
	"charm.land/bubbles/v2/textinput"
	"charm.land/bubbles/v2/viewport"
	tea "charm.land/bubbletea/v2"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/usertext"
)

// mode is what the keys are for.
type mode int

const (
	browsing  mode = iota
	asking         // a question to answer with y
	rejecting      // the reason is typed
	searching      // the text to search for is typed
	helping
)

// everything is the filter that every status passes.
const everything = "all"

var filters = append(slices.Clone(describe.Statuses), everything)

// model is all that decides what is on the screen.
type model struct {
	desk          *desk
	width, height int

	all         []learn.Proposal
	runs        []learn.RunRecord
	inForce     map[string]bool
	suggestions map[string]string
	stamp       string // of what is loaded; "" before anything is
	filter      string // "" until something is loaded
	query       string

	listed      []int // indices of all
	cursor      int   // index of listed
	differences map[string]difference

	mode     mode
	input    textinput.Model
	target   string // of what is typed: the proposal to reject, whatever is selected by then
	question question
	details  viewport.Model
	zoomed   bool

	message string // what happened last
	failed  bool
	busy    bool // a decision or an editor is under way
}

// question asks before something is done.
type question struct {
	text   string
	yes    tea.Cmd
	edited *edited // shown in place of the proposal
}

func newModel(d *desk) model {
	input := textinput.New()
	input.CharLimit = 256
	styles := input.Styles()
	styles.Cursor.Blink = false
	input.SetStyles(styles)
	details := viewport.New()
	details.SoftWrap = true
	details.KeyMap = viewport.KeyMap{}
	return model{desk: d, input: input, details: details, differences: map[string]difference{}}
}

func (m model) Init() tea.Cmd { return tea.Batch(m.desk.load("", false), m.desk.poll()) }

// Update takes in a key, or what a command brought.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	var cmd tea.Cmd
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		cmd = m.press(msg)
	case tea.PasteMsg:
		if m.mode == rejecting || m.mode == searching {
			m.input, cmd = m.input.Update(msg)
		}
	case pollDue:
		return m, m.desk.load(m.stamp, true)
	case unchanged:
		return m, m.desk.poll()
	case loaded:
		cmd = m.load(msg)
	case difference:
		if msg.stamp == m.stamp {
			m.differences[msg.key] = msg
		}
	case decided:
		cmd = m.decided(msg)
	case drafted:
		if msg.err != nil {
			m.busy = false
			m.fail(msg.err)
			break
		}
		return m, m.desk.edit(msg)
	case edited:
		m.edited(msg)
	}
	if m.width == 0 {
		return m, cmd
	}
	more := m.look()
	m.lay()
	return m, tea.Batch(cmd, more)
}

// load takes in what is on disk. The cursor stays with its proposal, or in its place.
func (m *model) load(msg loaded) tea.Cmd {
	var again tea.Cmd
	if msg.polled {
		again = m.desk.poll()
	}
	if msg.err != nil {
		m.fail(msg.err)
		return again
	}
	selected := ""
	if p := m.selected(); p != nil {
		selected = p.ID
	}
	m.all, m.runs, m.inForce, m.suggestions = msg.proposals, msg.runs, msg.inForce, msg.suggestions
	m.stamp, m.differences = msg.stamp, map[string]difference{}
	if m.filter == "" {
		m.filter = everything
		if m.count(learn.StatusPending) > 0 {
			m.filter = learn.StatusPending
		}
	}
	m.list(selected)
	return again
}

// list applies the filters.
func (m *model) list(selected string) {
	m.listed = m.listed[:0:0]
	place := -1
	for i := range m.all {
		p := &m.all[i]
		if m.filter != everything && p.Status != m.filter || !matches(p, m.query) {
			continue
		}
		if p.ID == selected {
			place = len(m.listed)
		}
		m.listed = append(m.listed, i)
	}
	if place >= 0 {
		m.cursor = place
		return
	}
	m.move(0)
	m.details.GotoTop()
}

// matches reports whether a proposal has the text in what the list or its rule tells of it.
func matches(p *learn.Proposal, query string) bool {
	query = strings.ToLower(query)
	for _, text := range slices.Concat([]string{p.ID, describe.Subject(p), p.Rationale, p.Evidence.Tree},
		describe.Binaries(p),
		p.Services(), p.SecurityNotes) {
		if strings.Contains(strings.ToLower(text), query) {
			return true
		}
	}
	return p.Rule != nil && slices.ContainsFunc(learn.Grants(p.Rule),
		func(s string) bool { return strings.Contains(strings.ToLower(s), query) })
}

func (m *model) count(status string) int {
	n := 0
	for i := range m.all {
		if m.all[i].Status == status {
			n++
		}
	}
	return n
}

// selected is the proposal under the cursor, or nil where the list is empty.
func (m *model) selected() *learn.Proposal {
	if m.cursor >= len(m.listed) {
		return nil
	}
	return &m.all[m.listed[m.cursor]]
}

func (m *model) move(by int) { m.cursor = max(min(m.cursor+by, len(m.listed)-1), 0) }

// look asks for the difference that the approval of the selected proposal would make.
func (m *model) look() tea.Cmd {
	p := m.selected()
	if p == nil {
		return nil
	}
	key := keyOf(p)
	if _, ok := m.differences[key]; ok {
		return nil
	}
	m.differences[key] = difference{key: key} // under way
	return m.desk.difference(*p, m.stamp)
}

func (m *model) say(format string, args ...any) {
	m.message, m.failed = fmt.Sprintf(format, args...), false
}

func (m *model) fail(err error) {
	m.message, m.failed = describe.Plain(usertext.OneLine(err)), true
}

// press is what a key does.
func (m *model) press(msg tea.KeyPressMsg) tea.Cmd {
	switch m.mode {
	case helping:
		m.mode = browsing
		if key.Matches(msg, keyCancel) {
			return tea.Quit
		}
		return nil
	case asking:
		return m.answer(msg)
	case rejecting, searching:
		return m.typed(msg)
	}
	if m.navigate(msg) {
		return nil
	}
	switch {
	case key.Matches(msg, keyQuit):
		return tea.Quit
	case key.Matches(msg, keyHelp):
		m.mode = helping
	case key.Matches(msg, keySearch):
		m.mode = searching
		return m.prompt("search: ", m.query)
	case m.busy:
		m.say("something is under way: wait for it")
	case key.Matches(msg, keyAll):
		m.askAll()
	case m.selected() == nil:
	case key.Matches(msg, keyApprove):
		m.askApproval(m.selected())
	case key.Matches(msg, keyUndo):
		m.askUndo(m.selected())
	case key.Matches(msg, keyReject):
		if m.selected().Status == learn.StatusApproved {
			m.fail(fmt.Errorf("%s is approved: undo that first", m.selected().ID))
			return nil
		}
		m.mode, m.target = rejecting, keyOf(m.selected())
		return m.prompt(fmt.Sprintf("why is %s not wanted? ", m.selected().ID), "")
	case key.Matches(msg, keyEdit):
		m.busy = true
		m.say("")
		return m.desk.draft(*m.selected())
	}
	return nil
}

// navigate reports whether a key only moves what is seen.
func (m *model) navigate(msg tea.KeyPressMsg) bool {
	before := m.selected()
	switch {
	case key.Matches(msg, keyUp):
		m.move(-1)
	case key.Matches(msg, keyDown):
		m.move(1)
	case key.Matches(msg, keyFirst):
		m.cursor = 0
	case key.Matches(msg, keyLast):
		m.move(len(m.listed))
	case key.Matches(msg, keyPage):
		m.details.HalfPageDown()
	case key.Matches(msg, keyBack):
		m.details.HalfPageUp()
	case key.Matches(msg, keyZoom):
		m.zoomed = !m.zoomed
	case key.Matches(msg, keyFilter):
		m.filter = filters[(slices.Index(filters, m.filter)+1)%len(filters)]
		m.list("")
	case key.Matches(msg, keyEscape):
		switch {
		case m.zoomed:
			m.zoomed = false
		case m.query != "":
			m.query = ""
			m.list(idOf(before))
		}
	default:
		return false
	}
	if m.selected() != before {
		m.details.GotoTop()
		m.say("")
	}
	return true
}

func idOf(p *learn.Proposal) string {
	if p == nil {
		return ""
	}
	return p.ID
}

// prompt has the reviewer type a line.
func (m *model) prompt(label, value string) tea.Cmd {
	m.input.Prompt = label
	m.input.SetValue(value)
	m.input.CursorEnd()
	m.say("")
	return m.input.Focus()
}

// typed is a key in a prompt.
func (m *model) typed(msg tea.KeyPressMsg) tea.Cmd {
	var cmd tea.Cmd
	was := m.mode
	switch {
	case key.Matches(msg, keyEscape, keyCancel):
		m.mode = browsing
	case !key.Matches(msg, keyEnter):
		m.input, cmd = m.input.Update(msg)
		return cmd
	case was == searching:
		m.mode = browsing
		m.query = strings.TrimSpace(m.input.Value())
		m.list(idOf(m.selected()))
	default:
		reason := strings.TrimSpace(m.input.Value())
		if reason == "" {
			m.fail(errors.New("say why, for those who review later; esc gives up"))
			return nil
		}
		m.mode, m.busy = browsing, true
		cmd = m.desk.reject(m.target, reason)
	}
	m.input.Blur()
	return cmd
}
