// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"slices"
	"testing"
)

// What a kill leaves of a line is as if it had never been begun.
func TestMemoryCutOff(t *testing.T) {
	m, err := newMemory()
	check(t, err)
	defer m.file.Close()
	check(t, m.add(line{Begun: &begun{Version: memoryVersion, Request: Request{ID: "web"}}}))
	check(t, m.add(line{Name: &numberedName{0, "a.example"}}))
	whole := m.size
	check(t, m.add(line{Name: &numberedName{1, "b.example"}}))
	for cut := whole; cut < m.size; cut++ {
		check(t, m.file.Truncate(m.size))
		if _, err := m.file.WriteAt([]byte(`{"name":{"number":1,"name":"b.example"}}`+"\n"), whole); err != nil {
			t.Fatal(err)
		}
		check(t, m.file.Truncate(cut))
		again, lines, err := readMemory(m.file)
		check(t, err)
		p, err := read(lines)
		check(t, err)
		if again.size != whole || p.begun.Request.ID != "web" || !slices.Equal(p.names, []numberedName{{0, "a.example"}}) {
			t.Fatalf("cut at %d: %d bytes, %+v", cut, again.size, p)
		}
		check(t, again.add(line{Name: &numberedName{1, "c.example"}}))
		if _, lines, err = readMemory(m.file); err != nil || len(lines) != 3 || lines[2].Name.Name != "c.example" {
			t.Fatalf("cut at %d: %+v, %v", cut, lines, err)
		}
	}
}

func TestMemoryOfAnotherVersion(t *testing.T) {
	for _, lines := range [][]line{nil, {{Name: &numberedName{0, "a"}}}, {{Begun: &begun{Version: memoryVersion + 1}}}} {
		if _, err := read(lines); err == nil {
			t.Errorf("%+v is taken over", lines)
		}
	}
}
