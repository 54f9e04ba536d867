// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	t.Setenv("OPENSHELL_CASES", file)
	t.Run("passes", func(t *testing.T) { Show(t, "clients/half-close", "faults/killed exec") })
	data, err := os.ReadFile(file)
	want := `{"row":"clients/half-close","test":"TestShow/passes","verdict":"pass"}
{"row":"faults/killed exec","test":"TestShow/passes","verdict":"pass"}
`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}

func TestTables(t *testing.T) {
	seen := map[string]bool{}
	for _, table := range Tables {
		for _, r := range table.Rows {
			name := table.Name + "/" + r.Name
			if seen[name] || !Known(name) || r.Name == "" || r.Input == "" || r.Right == "" || strings.Contains(r.Input+r.Right, "\n") {
				t.Errorf("%s: twice, or not whole", name)
			}
			seen[name] = true
		}
	}
	for _, name := range []string{"", "clients/", "clients/half-closed", "half-close", "faults/half-close"} {
		if Known(name) {
			t.Errorf("%q is known", name)
		}
	}
}
