// SPDX-License-Identifier: Apache-2.0

// Package describe puts proposals into words, for every place where they are shown: what each is in one
// line, and all there is to know about it. What it writes is fit for a terminal, whatever a
// workload has called itself and what it asked for.
//
// It decides nothing, and reads and writes no state.
package describe

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"openshell.ai/openshell/internal/audit"
)

// Plain returns text as it may be shown on one line. What is stored has been escaped
// once and stays as it is; what should not be there is escaped here.
func Plain(s string) string {
	deceptive := func(r rune) bool { return r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r)) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, deceptive) {
		return s
	}
	return audit.Escape(s, math.MaxInt)
}

const ellipsis = "…"

// KeepEnd cuts text to limit characters at its beginning: of a host or a program the end
// tells most.
func KeepEnd(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return ellipsis + string(runes[len(runes)-limit+1:])
}

// KeepStart cuts text to limit characters at its end.
func KeepStart(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return string(runes[:limit-1]) + ellipsis
}

// WriteTable lays out rows in columns, the first row being the header.
func WriteTable(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	colour := Coloured(w)
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(Paint(colour, cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteDiff writes the lines of a policy's difference.
func WriteDiff(w io.Writer, indent string, lines []string) {
	colour := Coloured(w)
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", indent, Paint(colour, Plain(line)))
	}
}

// colours of the words that carry a verdict, as SGR parameters (ECMA-48 8.3.117).
var colours = map[string]string{
	"pending": "33", "permissive": "33", "warn": "33",
	"approved": "32", "running": "32", "ok": "32", "+": "32",
	"rejected": "31", "dead": "31", "fail": "31", "-": "31",
}

// Paint colours a text by its first word.
func Paint(colour bool, s string) string {
	word, _, _ := strings.Cut(s, " ")
	code, ok := colours[word]
	if !colour || !ok {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Coloured reports whether w takes colours: a terminal can show them, and NO_COLOR
// (no-color.org) does not forbid it.
func Coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
