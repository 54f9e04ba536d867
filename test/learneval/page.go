// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// WriteTables replaces parts of a Markdown page by their names. A part is between the lines <!-- NAME -->
// and <!-- end of NAME -->; it is an error if the page lacks one.
func WriteTables(page string, parts map[string]string) error {
	data, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text := string(data)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
		before, rest, ok := strings.Cut(text, begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			return fmt.Errorf("%s: has no lines %q and %q", page, strings.TrimSpace(begin), strings.TrimSpace(end))
		}
		text = before + begin + "\n" + strings.TrimSpace(parts[name]) + "\n\n" + end + after
	}
	return os.WriteFile(page, []byte(text), 0o644)
}
