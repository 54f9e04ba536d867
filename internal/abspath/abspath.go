// SPDX-License-Identifier: Apache-2.0

// Package abspath owns whether one path is below another, as text: links are not followed.
package abspath

import (
	"path"
	"strings"
)

// Within reports whether p is dir or below it. dir is clean.
func Within(p, dir string) bool {
	_, ok := Rel(p, dir)
	return ok
}

// Rel returns the path of p below dir, "" for dir itself. dir is clean.
func Rel(p, dir string) (rel string, ok bool) {
	rest, ok := strings.CutPrefix(path.Clean(p), strings.TrimSuffix(dir, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}
