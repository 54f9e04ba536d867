package operator

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"openshell.ai/openshell/audit"
)

// plain returns text as it may be shown on one line. What is stored has been escaped
// once and stays as it is; what should not be there is escaped here.
func plain(s string) string {
	deceptive := func(r rune) bool { return r != ' ' && (!unicode.IsGraphic(r) || unicode.IsSpace(r)) }
	if utf8.ValidString(s) && !strings.ContainsFunc(s, deceptive) {
		return s
	}
	return audit.Escape(s, math.MaxInt)
}

const ellipsis = "…"

// keepEnd cuts text to limit characters at its beginning: of a host or a program the end
// tells most.
func keepEnd(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return ellipsis + string(runes[len(runes)-limit+1:])
}

// keepStart cuts text to limit characters at its end.
func keepStart(s string, limit int) string {
	runes := []rune(s)
	if len(runes) <= limit {
		return s
	}
	return string(runes[:limit-1]) + ellipsis
}

// writeTable lays out rows in columns, the first row being the header.
func writeTable(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	colour := coloured(w)
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(paint(colour, cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeDiff writes the lines of a policy's difference.
func writeDiff(w io.Writer, indent string, lines []string) {
	colour := coloured(w)
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", indent, paint(colour, plain(line)))
	}
}

// colours of the words that carry a verdict, as SGR parameters (ECMA-48 8.3.117).
var colours = map[string]string{
	"pending": "33", "permissive": "33", "warn": "33",
	"approved": "32", "alive": "32", "ok": "32", "+": "32",
	"rejected": "31", "dead": "31", "fail": "31", "-": "31",
}

// paint colours a text by its first word.
func paint(colour bool, s string) string {
	word, _, _ := strings.Cut(s, " ")
	code, ok := colours[word]
	if !colour || !ok {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// coloured reports whether w takes colours: a terminal can show them, and NO_COLOR
// (no-color.org) does not forbid it.
func coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}
