// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/usertext"
)

// The smallest screen there is room on, in cells.
const (
	minWidth  = 40
	minHeight = 10
)

// chrome is how many lines are neither the list nor the details: title, header, line between, message and
// keys.
const chrome = 5

var (
	bold     = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	inverse  = lipgloss.NewStyle().Reverse(true)
	positive = lipgloss.NewStyle().Foreground(lipgloss.Green)
	negative = lipgloss.NewStyle().Foreground(lipgloss.Red)
	caution  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
)

// View is the screen. Where the terminal has no colours, or NO_COLOR is set, bubbletea leaves them out.
func (m model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

func (m *model) screen() string {
	switch {
	case m.width == 0:
		return "" // the terminal has not said yet how large it is
	case m.width < minWidth || m.height < minHeight:
		return ansi.Truncate(fmt.Sprintf("the terminal is too small: %dx%d at least", minWidth, minHeight), m.width, "")
	case m.mode == helping:
		return m.help()
	}
	lines := []string{m.title()}
	if !m.zoomed {
		lines = append(lines, m.table()...)
	}
	lines = append(lines, faint.Render(strings.Repeat("─", m.width)))
	lines = append(lines, strings.Split(m.details.View(), "\n")...)
	lines = append(lines, m.status(), m.keys())
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "…")
	}
	return strings.Join(lines, "\n")
}

// listHeight is how many proposals there is room for.
func (m *model) listHeight() int {
	body := m.height - chrome
	return max(min(len(m.listed), body*2/5), 1)
}

// lay fits the details in, and says in them what there is to say.
func (m *model) lay() {
	height := m.height - chrome - m.listHeight()
	if m.zoomed {
		height = m.height - chrome + 1 // there is no header either
	}
	m.details.SetWidth(m.width)
	m.details.SetHeight(max(height, 1))
	m.input.SetWidth(max(m.width-ansi.StringWidth(m.input.Prompt)-1, 1))
	m.details.SetContent(m.text())
}

func (m *model) title() string {
	parts := []string{bold.Render("review " + m.desk.policy)}
	for _, status := range describe.Statuses {
		if n := m.count(status); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, status))
		}
	}
	if m.filter != "" && m.filter != everything {
		parts = append(parts, "only "+m.filter)
	}
	if m.query != "" {
		parts = append(parts, "with "+describe.Plain(m.query))
	}
	return strings.Join(parts, " · ")
}

// table is the header and the part of the list around the cursor.
func (m *model) table() []string {
	ids := 10
	for _, i := range m.listed {
		ids = min(max(ids, len(m.all[i].ID)), 18)
	}
	lines := []string{faint.Render(m.row(ids, "ID", "STATUS", "CONF", "HITS", "SEEN", "TARGET", "WHAT", "PROGRAM"))}
	height := m.listHeight()
	if len(m.listed) == 0 {
		return append(lines, faint.Render("  "+m.emptiness()))
	}
	first := max(min(m.cursor-height/2, len(m.listed)-height), 0)
	for place := first; place < min(first+height, len(m.listed)); place++ {
		p := &m.all[m.listed[place]]
		line := m.row(ids, describe.KeepStart(p.ID, ids), describe.Plain(p.Status), describe.Confidence(p),
			fmt.Sprint(p.Evidence.Hits),
			describe.SeenIn(p, m.runs), describe.Endpoint(p), describe.What(p), describe.Programs(p))
		if len(p.SecurityNotes) > 0 {
			line = "!" + line[1:]
		}
		switch {
		case place == m.cursor:
			line = inverse.Render(line)
		case len(p.SecurityNotes) > 0:
			line = caution.Render(line)
		}
		lines = append(lines, line)
	}
	return lines
}

func (m *model) emptiness() string {
	switch {
	case m.stamp == "":
		return "reading…"
	case len(m.all) == 0:
		return "no proposals: run a container permissively with openshell.ai/policy=" + m.desk.policy
	}
	return "nothing of this kind: f lists another status, esc all texts"
}

// row lays out one line of the list: what has no bound shares what is left of the width.
func (m *model) row(ids int, id, status, confidence, hits, seen, target, what, program string) string {
	fixed := fmt.Sprintf("  %-*s ", ids, id)
	if m.filter == everything || m.filter == "" {
		fixed += fmt.Sprintf("%-10s ", status)
	}
	fixed += fmt.Sprintf("%4s %5s %8s  ", confidence, hits, seen)
	left := max(m.width-ansi.StringWidth(fixed)-2, 3)
	targets, whats := left*2/5, left*3/10
	line := fixed + endOf(target, targets) + " " + cell(what, whats) + " " + endOf(program, left-targets-whats)
	return cell(line, m.width)
}

// cell is text of exactly so many cells.
func cell(s string, width int) string {
	s = ansi.Truncate(s, width, "…")
	return s + strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
}

// endOf is cell for what its end tells most about.
func endOf(s string, width int) string {
	if over := ansi.StringWidth(s) - width; over > 0 {
		s = ansi.TruncateLeft(s, over+1, "…")
	}
	return cell(s, width)
}

// text is all there is to know about the selected proposal, what matters most for the decision first.
func (m *model) text() string {
	var b strings.Builder
	if m.failed && ansi.StringWidth(m.message) > m.width {
		fmt.Fprintf(&b, "! %s\n\n", m.message) // what does not fit in its line
	}
	if e := m.question.edited; e != nil {
		fmt.Fprintf(&b, "Of %s, this is to be approved:\n%s", e.proposal.ID, describe.Indent(e.rule))
		describe.WriteDifference(&b, e.lines)
		return emphasise(b.String())
	}
	p := m.selected()
	if p == nil {
		describe.WriteUnproposed(&b, "", m.runs)
		return emphasise(b.String())
	}
	fmt.Fprintln(&b, describe.Subject(p))
	describe.WriteNotes(&b, p, m.suggestions[p.ID])
	switch d := m.differences[keyOf(p)]; {
	case p.Status == learn.StatusApproved && p.DecidedAt != nil:
		fmt.Fprintf(&b, "\nApproved %s by %s.\n", describe.Timestamp(*p.DecidedAt), describe.Plain(p.DecidedBy))
	case d.err != nil:
		fmt.Fprintf(&b, "\n! What the approval would change cannot be told: %s\n", describe.Plain(usertext.OneLine(d.err)))
	case d.stamp == "":
		fmt.Fprintln(&b, "\nApproval would change: …")
	default:
		describe.WriteDifference(&b, d.lines)
	}
	describe.WriteEvidence(&b, p)
	if err := describe.WriteRule(&b, p); err != nil {
		fmt.Fprintf(&b, "! %s\n", describe.Plain(err.Error()))
	}
	b.WriteString("\n")
	describe.WriteSummary(&b, p, m.runs)
	if err := describe.WriteRuns(&b, p.Provenance.Runs); err != nil {
		fmt.Fprintf(&b, "! %s\n", describe.Plain(err.Error()))
	}
	describe.WriteUnproposed(&b, " of this policy", m.runs)
	return emphasise(b.String())
}

// emphasise has what a line begins with show.
func emphasise(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		switch word := strings.TrimLeft(line, " "); {
		case strings.HasPrefix(word, "+ "):
			lines[i] = positive.Render(line)
		case strings.HasPrefix(line, "  - "): // in a rule there are more spaces
			lines[i] = negative.Render(line)
		case strings.HasPrefix(word, "! "):
			lines[i] = caution.Render(line)
		case word == line && strings.HasSuffix(line, ":") || i == 0:
			lines[i] = bold.Render(line)
		}
	}
	return strings.Join(lines, "\n")
}

// status is the line that is talked in.
func (m *model) status() string {
	switch {
	case m.mode == asking:
		return caution.Bold(true).Render(m.question.text) + " y: yes, any other key: no"
	case m.mode == rejecting, m.mode == searching:
		return m.input.View()
	case m.failed:
		return negative.Render(m.message)
	case m.message == "" && m.busy:
		return faint.Render("…")
	}
	return positive.Render(m.message)
}

// keys is the line that says what the keys do, as many as there is room for.
func (m *model) keys() string {
	line := ""
	switch m.mode {
	case asking:
		return faint.Render("y yes  space/b scroll  any other key: no")
	case rejecting, searching:
		if m.failed {
			return negative.Render(m.message)
		}
		return faint.Render("enter accept  esc give up")
	}
	for _, k := range shortHelp {
		h := k.Help()
		if part := h.Key + " " + h.Desc; ansi.StringWidth(line+part) <= m.width {
			line += part + "  "
		}
	}
	return faint.Render(strings.TrimRight(line, " "))
}

func (m *model) help() string {
	lines := []string{bold.Render("keys"), ""}
	for _, h := range longHelp {
		lines = append(lines, fmt.Sprintf("  %-8s%s", h.key.Help().Key, h.does))
	}
	lines = append(lines, "", faint.Render("any key goes back"))
	lines = lines[max(len(lines)-m.height, 0):]
	for i, line := range lines {
		lines[i] = ansi.Truncate(line, m.width, "…")
	}
	return strings.Join(lines, "\n")
}
