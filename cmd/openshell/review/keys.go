// SPDX-License-Identifier: Apache-2.0

package review

import "charm.land/bubbles/v2/key"

// The keys. In a prompt only enter, esc and ctrl+c are keys.
var (
	keyUp      = key.NewBinding(key.WithKeys("up", "k"), key.WithHelp("↑/k", "up"))
	keyDown    = key.NewBinding(key.WithKeys("down", "j"), key.WithHelp("↓/j", "down"))
	keyFirst   = key.NewBinding(key.WithKeys("home", "g"), key.WithHelp("g", "first"))
	keyLast    = key.NewBinding(key.WithKeys("end", "G"), key.WithHelp("G", "last"))
	keyZoom    = key.NewBinding(key.WithKeys("enter"), key.WithHelp("enter", "details"))
	keyPage    = key.NewBinding(key.WithKeys("pgdown", "space", "ctrl+d"), key.WithHelp("space", "scroll details"))
	keyBack    = key.NewBinding(key.WithKeys("pgup", "b", "ctrl+u"), key.WithHelp("b", "scroll back"))
	keyApprove = key.NewBinding(key.WithKeys("a"), key.WithHelp("a", "approve"))
	keyAll     = key.NewBinding(key.WithKeys("A"), key.WithHelp("A", "approve all listed"))
	keyReject  = key.NewBinding(key.WithKeys("r"), key.WithHelp("r", "reject"))
	keyEdit    = key.NewBinding(key.WithKeys("e"), key.WithHelp("e", "edit"))
	keyUndo    = key.NewBinding(key.WithKeys("u"), key.WithHelp("u", "undo"))
	keyFilter  = key.NewBinding(key.WithKeys("f", "tab"), key.WithHelp("f", "filter"))
	keySearch  = key.NewBinding(key.WithKeys("/"), key.WithHelp("/", "search"))
	keyHelp    = key.NewBinding(key.WithKeys("?"), key.WithHelp("?", "help"))
	keyQuit    = key.NewBinding(key.WithKeys("q", "ctrl+c"), key.WithHelp("q", "quit"))
	keyEscape  = key.NewBinding(key.WithKeys("esc"), key.WithHelp("esc", "back"))
	keyEnter   = key.NewBinding(key.WithKeys("enter"))
	keyYes     = key.NewBinding(key.WithKeys("y", "Y"))
	keyCancel  = key.NewBinding(key.WithKeys("ctrl+c"))
)

// shortHelp is at the bottom of the screen, the keys that nobody should have to look for first.
var shortHelp = []key.Binding{keyHelp, keyQuit, keyApprove, keyReject, keyEdit, keyUndo, keyFilter, keySearch, keyZoom}

// longHelp says more about each key than there is room for there.
var longHelp = []struct {
	key  key.Binding
	does string
}{
	{keyUp, "the proposal above"}, {keyDown, "the proposal below"}, {keyFirst, "the first one"}, {keyLast, "the last one"},
	{keyPage, "scroll the details"}, {keyBack, "scroll them back"}, {keyZoom, "the details on the whole screen"},
	{keyApprove, "approve exactly the rule shown, here and in the sandboxes that run"},
	{keyAll, "approve all pending ones listed, but those that were cut short"},
	{keyReject, "reject, with a reason, until the rule changes"},
	{keyEdit, "approve less: take something out of the rule in $VISUAL or $EDITOR"},
	{keyUndo, "take back exactly what was approved"},
	{keyFilter, "list those of another status"}, {keySearch, "list those that contain a text"},
	{keyEscape, "leave what you are in, or list all again"}, {keyQuit, "quit"},
}
