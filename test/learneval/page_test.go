// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteTables(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("# A\n<!-- b -->\nold\n<!-- end of b -->\nc\n<!-- a -->\n<!-- end of a -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := WriteTables(page, map[string]string{"a": "one\n", "b": "\ntwo"}); err != nil {
			t.Fatal(err)
		}
		const want = "# A\n<!-- b -->\n\ntwo\n\n<!-- end of b -->\nc\n<!-- a -->\n\none\n\n<!-- end of a -->\n"
		if got, err := os.ReadFile(page); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := WriteTables(page, map[string]string{"x": ""}); err == nil {
		t.Error("a part that the page lacks is written")
	}
}
