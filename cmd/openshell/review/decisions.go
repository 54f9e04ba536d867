// SPDX-License-Identifier: Apache-2.0

package review

import (
	"errors"
	"fmt"
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"openshell.ai/openshell/cmd/openshell/describe"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/internal/usertext"
)

// ask has the reviewer confirm something.
func (m *model) ask(text string, yes tea.Cmd) {
	m.mode, m.question = asking, question{text: text, yes: yes}
	m.say("")
}

func (m *model) answer(msg tea.KeyPressMsg) tea.Cmd {
	switch {
	case key.Matches(msg, keyPage):
		m.details.HalfPageDown()
		return nil
	case key.Matches(msg, keyBack):
		m.details.HalfPageUp()
		return nil
	}
	q := m.question
	m.mode, m.question = browsing, question{}
	if !key.Matches(msg, keyYes) {
		m.say("nothing was done")
		return nil
	}
	m.busy = true
	return q.yes
}

func (m *model) askApproval(p *learn.Proposal) {
	d := m.differences[keyOf(p)]
	switch {
	case p.Status == learn.StatusApproved:
		m.fail(fmt.Errorf("%s is approved already", p.ID))
	case d.err != nil:
		m.fail(d.err)
	case d.stamp == "":
		m.say("what the approval would change is not known yet: try again")
	default:
		text := fmt.Sprintf("approve %s (%s)?", p.ID, tally(d.lines))
		if p.Flags.Sensitive {
			text = fmt.Sprintf("approve %s (%s), though what it grants whole is sensitive?", p.ID, tally(d.lines))
		}
		if p.Flags.PortVaries {
			text = fmt.Sprintf("approve %s (%s), though its port is hardly the next run's?", p.ID, tally(d.lines))
		}
		if p.CutShort() {
			text = fmt.Sprintf("approve %s (%s), though it does not tell all that was seen?", p.ID, tally(d.lines))
		}
		m.ask(text, m.desk.approve([]string{keyOf(p)}))
	}
}

// askAll asks for the approval of all pending proposals that are listed, and need no look.
func (m *model) askAll() {
	var keys []string
	left := 0
	for _, i := range m.listed {
		switch p := &m.all[i]; {
		case p.Status != learn.StatusPending:
		case (learn.Include{}).LeavesOut(p) != "":
			left++
		default:
			keys = append(keys, keyOf(p))
		}
	}
	without := ""
	if left > 0 {
		without = fmt.Sprintf(" (not %d that have to be looked at: they do not tell all, are sensitive, or for ports that vary)", left)
	}
	if len(keys) == 0 {
		m.fail(errors.New("nothing that is listed waits for approval" + without))
		return
	}
	m.ask(fmt.Sprintf("approve %s%s?", describe.Count(len(keys), "proposal", "proposals"), without),
		m.desk.approveAllowed(keys))
}

func (m *model) askUndo(p *learn.Proposal) {
	if !m.inForce[p.ID] {
		m.fail(fmt.Errorf("%s is not approved", p.ID))
		return
	}
	m.ask(fmt.Sprintf("take back what was approved of %s?", p.ID), m.desk.undo(keyOf(p)))
}

// tally is a difference in a few words.
func tally(lines []string) string {
	more, less := 0, 0
	for _, line := range lines {
		if strings.HasPrefix(line, "-") {
			less++
		} else {
			more++
		}
	}
	return fmt.Sprintf("+%d -%d", more, less)
}

// decided says what became of a decision, and reads what that changed.
func (m *model) decided(msg decided) tea.Cmd {
	m.busy = false
	m.message, m.failed = outcome(msg), msg.err != nil
	return m.desk.load("", false)
}

func outcome(msg decided) string {
	var parts []string
	switch approved := msg.change.Approved; len(approved) {
	case 0:
	case 1:
		parts = append(parts, msg.what+" "+approved[0].ID)
	default:
		parts = append(parts, fmt.Sprintf("%s %d proposals", msg.what, len(approved)))
	}
	for _, id := range msg.change.Undone {
		parts = append(parts, msg.what+" "+id)
	}
	for _, id := range msg.change.NotUndone {
		parts = append(parts, id+" is not approved")
	}
	if len(parts) == 0 && msg.err == nil {
		parts = append(parts, msg.what)
	}
	if n := len(msg.change.Superseded); n > 0 {
		parts = append(parts, fmt.Sprintf("%d superseded", n))
	}
	if len(msg.change.Difference) > 0 {
		parts = append(parts, tally(msg.change.Difference))
	}
	if len(msg.change.Reloaded) > 0 {
		parts = append(parts, "in force in "+strings.Join(msg.change.Reloaded, ", "))
	}
	if msg.err != nil {
		parts = append(parts, usertext.OneLine(msg.err))
	}
	return describe.Plain(strings.Join(parts, ", "))
}

// edited asks for the approval of what the reviewer made of a proposal.
func (m *model) edited(msg edited) {
	m.busy = false
	switch {
	case errors.Is(msg.err, errNoEdit):
		m.say("nothing was changed, and nothing approved")
	case msg.err != nil:
		m.fail(fmt.Errorf("e edits it again: %w", msg.err))
	default:
		text := fmt.Sprintf("approve this of %s (%s)?", msg.proposal.ID, tally(msg.lines))
		m.ask(text, m.desk.approveEdited(keyOf(&msg.proposal), msg.edit))
		m.question.edited = &msg
		m.details.GotoTop()
	}
}
