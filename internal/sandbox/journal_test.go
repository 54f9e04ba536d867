// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"slices"
	"testing"
)

// What a kill leaves of a line is as if it had never been begun.
func TestJournalCutOff(t *testing.T) {
	m, err := newJournal()
	check(t, err)
	defer m.file.Close()
	check(t, m.add(entry{Begun: &begun{Version: journalVersion, Request: Request{ID: "web"}}}))
	check(t, m.add(entry{Name: &numberedName{0, "a.example"}}))
	whole := m.size
	check(t, m.add(entry{Name: &numberedName{1, "b.example"}}))
	for cut := whole; cut < m.size; cut++ {
		check(t, m.file.Truncate(m.size))
		if _, err := m.file.WriteAt([]byte(`{"name":{"number":1,"name":"b.example"}}`+"\n"), whole); err != nil {
			t.Fatal(err)
		}
		check(t, m.file.Truncate(cut))
		again, entries, err := readJournal(m.file)
		check(t, err)
		p, err := parseJournal(entries)
		check(t, err)
		if again.size != whole || p.begun.Request.ID != "web" || !slices.Equal(p.names, []numberedName{{0, "a.example"}}) {
			t.Fatalf("cut at %d: %d bytes, %+v", cut, again.size, p)
		}
		check(t, again.add(entry{Name: &numberedName{1, "c.example"}}))
		if _, entries, err = readJournal(m.file); err != nil || len(entries) != 3 || entries[2].Name.Name != "c.example" {
			t.Fatalf("cut at %d: %+v, %v", cut, entries, err)
		}
	}
}

func TestJournalOfAnotherVersion(t *testing.T) {
	for _, entries := range [][]entry{nil, {{Name: &numberedName{0, "a"}}}, {{Begun: &begun{Version: journalVersion + 1}}}} {
		if _, err := parseJournal(entries); err == nil {
			t.Errorf("%+v is taken over", entries)
		}
	}
}
