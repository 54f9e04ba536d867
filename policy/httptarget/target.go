// SPDX-License-Identifier: Apache-2.0

// Package httptarget owns the targets of HTTP requests: which there may be, and what
// servers read in one.
package httptarget

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// maxPath is the longest path of a request target, in bytes, as it is sent and
// as it is compared.
const maxPath = 4096

// Target is the target of an HTTP request, with every path that a server may
// read in it: whether it resolves dot segments, drops ";parameters", merges
// slashes, takes "%2F" for a slash, decodes twice. Rules decide on all of these,
// and what was sent is sent on.
//
// It is immutable. The zero value has no readings.
type Target struct {
	sent  string // the path, byte for byte; "*" where the server itself is meant
	query string
	asks  bool      // there is a "?"
	read  *readings // nil where sent is the only one, in the spelling of rules
}

// readings are what a path may be read as.
type readings struct {
	path   string // as it was sent, in the spelling of rules
	others []reading
}

// reading is a path that a server may read where another one would read Path.
type reading struct {
	Path  string
	Slash bool // an encoded slash was taken for one
}

// asterisk is the target of an OPTIONS for the server as a whole (RFC 9112
// section 3.2.4).
const asterisk = "*"

// Parse reads a request's target, in origin, absolute or asterisk form. The
// error is for a target that no request may have, because servers would read it in
// ways that cannot be told beforehand.
func Parse(method, target string) (Target, error) {
	for i := range len(target) {
		switch b := target[i]; {
		case b < 0x20 || b == 0x7f:
			return Target{}, errControl
		case b == ' ':
			return Target{}, errors.New("request-target contains a space")
		case b >= 0x80:
			return Target{}, errors.New("request-target contains raw non-ASCII bytes; non-ASCII must be percent-encoded")
		case b == '#':
			return Target{}, errors.New("request-target contains a fragment")
		}
	}
	raw, query, asks := strings.Cut(target, "?")
	raw = originForm(raw)
	switch {
	case (target == asterisk || raw == "" && target != "" && !asks) && strings.EqualFold(method, "OPTIONS"):
		return Target{sent: asterisk}, nil
	case raw == "":
		raw = "/"
	case raw[0] != '/':
		return Target{}, errors.New("request-target is not a valid origin-form path")
	case len(raw) > maxPath:
		return Target{}, errors.New("request-target exceeds the configured maximum length")
	}
	t := Target{sent: raw, query: query, asks: asks}
	if isPlain(raw) { // as nearly every target is
		return t, nil
	}
	var err error
	if t.read, err = readingsOf(raw); err != nil {
		return Target{}, err
	}
	return t, nil
}

// Path is the target's path as it was sent, in the spelling that rules are
// compared with: unreserved bytes are decoded, others escaped in upper case.
func (t Target) Path() string {
	if t.read != nil {
		return t.read.path
	}
	return t.sent
}

// Plain reports whether what was sent is the only reading, in the spelling of rules.
func (t *Target) Plain() bool { return t.read == nil }

// Others are the readings besides Path.
func (t Target) Others() []reading {
	if t.read != nil {
		return t.read.others
	}
	return nil
}

// Query is what follows the "?".
func (t Target) Query() string { return t.query }

// Readings are the paths that rules decide on: Path, and those that other servers
// would read.
func (t Target) Readings() []string {
	all := []string{t.Path()}
	for _, other := range t.Others() {
		all = append(all, other.Path)
	}
	return all
}

// URL is the target at an origin, such that net/http sends it byte for byte.
func (t Target) URL(scheme, host string) *url.URL {
	u := &url.URL{Scheme: scheme, Host: host, RawQuery: t.query, ForceQuery: t.asks}
	if !strings.HasPrefix(t.sent, "//") {
		u.Opaque = t.sent
		return u
	}
	// An opaque part that begins so would be taken for a host. readingsOf has seen to
	// it that this one can be told in the other way.
	u.RawPath = t.sent
	u.Path, _ = url.PathUnescape(t.sent)
	return u
}

// isPlain reports whether a path is spelt as rules are and has one reading. It
// may say no of one that is.
func isPlain(path string) bool {
	start := 0 // of the segment
	for i := range len(path) {
		switch b := path[i]; {
		case b != '/':
			if !isPchar(b) {
				return false
			}
		case i > 0 && i == start, dots(path[start:i]):
			return false
		default:
			start = i + 1
		}
	}
	return path[0] == '/' && !dots(path[start:])
}

// dots reports whether a segment is a dot segment.
func dots(segment string) bool { return segment == "." || segment == ".." }

// originForm strips scheme and authority from an absolute-form target.
func originForm(target string) string {
	if strings.HasPrefix(target, "/") {
		return target // may contain "://" in a segment
	}
	scheme, rest, found := strings.Cut(target, "://")
	if !found || !(strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		return target
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return ""
	}
	return rest[slash:]
}

// maxReadings bounds how many ways there are to read a target. What clients send
// has a few.
const maxReadings = 32

// readingsOf finds a path's readings: whatever comes of any of the ways to read it,
// in any order.
func readingsOf(sent string) (*readings, error) {
	first, err := decode(sent, true)
	if err != nil {
		return nil, err
	}
	type found struct {
		text  string // decoded
		slash bool
	}
	all := []found{{text: first}}
	for i := 0; i < len(all); i++ {
		text := all[i].text
		if hasOneReading(text) {
			continue
		}
		if err := check(text); err != nil {
			return nil, err
		}
		for _, way := range ways {
			other, err := way.read(text)
			switch {
			case err != nil:
				return nil, err
			case slices.ContainsFunc(all, func(f found) bool { return f.text == other }):
			case len(all) == maxReadings:
				return nil, fmt.Errorf("request-target can be read in more than %d ways", maxReadings)
			default:
				all = append(all, found{other, all[i].slash || way.slash})
			}
		}
	}
	r := &readings{path: spell(first)}
	if len(r.path) > maxPath {
		return nil, errors.New("request-target exceeds the configured maximum length once it is escaped")
	}
	if strings.HasPrefix(sent, "//") && (&url.URL{Path: mustUnescape(sent), RawPath: sent}).EscapedPath() != sent {
		return nil, errors.New("request-target begins with '//' and has bytes that must be percent-encoded")
	}
	// Last is what comes of most ways, which says most of a refusal.
	for _, f := range slices.Backward(all[1:]) {
		r.others = append(r.others, reading{spell(f.text), f.slash})
	}
	return r, nil
}

// hasOneReading reports whether decoded text has nothing that check or one of the ways is
// about. It may say no of some that has not.
func hasOneReading(text string) bool {
	for i := range len(text) {
		switch b := text[i]; {
		case b < 0x20, b >= 0x80, b == '%', b == ';', b == '\\':
			return false
		case b == '/' && i+1 < len(text) && (text[i+1] == '/' || text[i+1] == '.'):
			return false
		}
	}
	return true
}

func mustUnescape(path string) string {
	unescaped, err := url.PathUnescape(path)
	if err != nil { // decode has read it
		panic(err)
	}
	return unescaped
}

// ways are the ways in which servers read a path differently from others. None
// makes it longer.
var ways = []struct {
	slash bool
	read  func(text string) (string, error)
}{
	{read: func(text string) (string, error) { return dropParameters(text, ";"), nil }},
	{read: func(text string) (string, error) { return dropParameters(text, ";"+encodedSemicolon), nil }},
	{read: func(text string) (string, error) { return strings.ReplaceAll(text, encodedSemicolon, ";"), nil }},
	{read: func(text string) (string, error) { return mergeSlashes(text), nil }},
	{read: resolveDots},
	{read: func(text string) (string, error) { return decode(text, false) }},
	{read: replaceLookalikes},
	{read: func(text string) (string, error) { return strings.ReplaceAll(text, encodedSlash, "/"), nil }, slash: true},
}

// encodedSlash and encodedSemicolon stand for "%2F" and "%3B" in decoded text.
// Control bytes are refused before, so no other byte decodes to them.
const (
	encodedSlash     = "\x01"
	encodedSemicolon = "\x02"
)

var errControl = errors.New("request-target contains a null or control byte")

// decode decodes each escape once. A "%" that begins none is an error where the
// text is as it was sent, and stands for itself where it was escaped itself.
func decode(text string, sent bool) (string, error) {
	if strings.IndexByte(text, '%') < 0 {
		return text, nil
	}
	var out strings.Builder
	out.Grow(len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			out.WriteByte(text[i])
			continue
		}
		high, low := -1, -1
		if i+2 < len(text) {
			high, low = hexDigit(text[i+1]), hexDigit(text[i+2])
		}
		if high < 0 || low < 0 {
			if sent {
				return "", errors.New("request-target contains an invalid percent-encoded sequence")
			}
			out.WriteByte('%')
			continue
		}
		switch b := byte(high<<4 | low); {
		case b < 0x20 || b == 0x7f:
			return "", errControl
		case b == '/':
			out.WriteString(encodedSlash)
		case b == ';':
			out.WriteString(encodedSemicolon)
		default:
			out.WriteByte(b)
		}
		i += 2
	}
	return out.String(), nil
}

func hexDigit(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b|0x20 >= 'a' && b|0x20 <= 'f':
		return int(b|0x20-'a') + 10
	}
	return -1
}

// check refuses decoded text whose reading cannot be told: some servers take a
// backslash for a slash, and some decoders take UTF-8 that is longer than need be,
// in which a slash can hide (RFC 3629 section 10). Nor has a dot segment beside an
// encoded slash any other use than to be found by who decodes that.
func check(text string) error {
	if strings.IndexByte(text, '\\') >= 0 {
		return errors.New("request-target contains a backslash, which some servers take for a slash")
	}
	for i := range len(text) {
		next := byte(0)
		if i+1 < len(text) {
			next = text[i+1]
		}
		switch b := text[i]; {
		case b == 0xc0, b == 0xc1, b == 0xe0 && next >= 0x80 && next < 0xa0, b == 0xf0 && next >= 0x80 && next < 0x90,
			b == 0xf8 && next >= 0x80 && next < 0x88, b == 0xfc && next >= 0x80 && next < 0x84:
			return errors.New("request-target contains overlong UTF-8")
		}
	}
	if !strings.Contains(text, encodedSlash) {
		return nil
	}
	for segment := range strings.SplitSeq(text, "/") {
		if !strings.Contains(segment, encodedSlash) {
			continue
		}
		for part := range strings.SplitSeq(segment, encodedSlash) {
			if at := strings.IndexAny(part, ";"+encodedSemicolon); at >= 0 {
				part = part[:at]
			}
			if dots(part) {
				return errors.New("request-target has a `.`/`..` segment beside an encoded '/' (%2F)")
			}
		}
	}
	return nil
}

// lookalikes are the characters that Unicode's compatibility forms, and the
// conversions to 8-bit character sets, turn into those that divide a path.
var lookalikes = strings.NewReplacer(
	"\uff0e", ".", "\ufe52", ".", "\u2024", ".", "\u2025", "..",
	"\uff0f", "/", "\u2044", "/", "\u2215", "/",
	"\uff3c", `\`, "\ufe68", `\`, "\u2216", `\`,
	"\uff1b", ";", "\ufe54", ";", "\u037e", ";",
	"\uff05", "%", "\ufe6a", "%",
)

func replaceLookalikes(text string) (string, error) {
	if strings.IndexFunc(text, func(r rune) bool { return r >= 0x80 }) < 0 {
		return text, nil
	}
	return lookalikes.Replace(text), nil
}

func dropParameters(text, from string) string {
	if !strings.ContainsAny(text, from) {
		return text
	}
	segments := strings.Split(text, "/")
	for i, segment := range segments {
		if at := strings.IndexAny(segment, from); at >= 0 {
			segments[i] = segment[:at]
		}
	}
	return strings.Join(segments, "/")
}

func mergeSlashes(text string) string {
	if !strings.Contains(text, "//") {
		return text
	}
	var out strings.Builder
	for i := range len(text) {
		if text[i] != '/' || i == 0 || text[i-1] != '/' {
			out.WriteByte(text[i])
		}
	}
	return out.String()
}

// resolveDots resolves dot segments as RFC 3986 section 5.2.4 does, but that above
// the root is an error.
func resolveDots(text string) (string, error) {
	if !strings.Contains(text, "/.") {
		return text, nil
	}
	segments := strings.Split(text[1:], "/")
	resolved := make([]string, 0, len(segments))
	for i, segment := range segments {
		if segment == ".." {
			if len(resolved) == 0 {
				return "", errors.New("request-target's `..` segment would escape the path root")
			}
			resolved = resolved[:len(resolved)-1]
		}
		if last := i == len(segments)-1; !dots(segment) {
			resolved = append(resolved, segment)
		} else if last {
			resolved = append(resolved, "")
		}
	}
	return "/" + strings.Join(resolved, "/"), nil
}

// spell escapes decoded text in the one way that rules are compared with.
func spell(text string) string {
	if isPlain(text) {
		return text
	}
	const upperHex = "0123456789ABCDEF"
	var out strings.Builder
	out.Grow(len(text))
	for i := range len(text) {
		switch b := text[i]; {
		case b == encodedSlash[0]:
			out.WriteString("%2F")
		case b == encodedSemicolon[0]:
			out.WriteString("%3B")
		case isPchar(b), b == '/', b == ';':
			out.WriteByte(b)
		default:
			out.Write([]byte{'%', upperHex[b>>4], upperHex[b&15]})
		}
	}
	return out.String()
}

// isPchar reports whether a byte stands for itself in a path segment: RFC 3986
// pchar, without ';', which may start parameters.
func isPchar(b byte) bool { return pchars[b] }

var pchars = func() (is [256]bool) {
	const punctuation = "-._~!$&'()*+,=:@"
	for i := range is {
		b := byte(i)
		is[i] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte(punctuation, b) >= 0
	}
	return is
}()
