// SPDX-License-Identifier: Apache-2.0

// Package usertext owns what all messages to people have in common: they are one line, and they know
// what a misspelt word probably means.
package usertext

import (
	"iter"
	"strings"
)

// OneLine is an error's text without the line ends of errors.Join.
func OneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// maxWord bounds the work of Closest, in bytes: no typing error makes a word that long.
const maxWord = 128

// Closest returns the known word that word is probably a misspelling of, or "". far says how many
// bytes may be missing, added or other in it. Of words that are equally near it is the first in
// the alphabet.
func Closest(word string, known iter.Seq[string], far func(known string) int) string {
	if len(word) > maxWord {
		return ""
	}
	best, distance := "", -1
	for k := range known {
		n := Distance(word, k)
		if n <= far(k) && (distance < 0 || n < distance || n == distance && k < best) {
			best, distance = k, n
		}
	}
	return best
}

// Distance is the Levenshtein distance of two words in bytes.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
