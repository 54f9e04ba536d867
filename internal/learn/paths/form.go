// SPDX-License-Identifier: Apache-2.0

package paths

import (
	"net/netip"
	"strings"
)

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isHexDigit(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// all reports whether every byte of s satisfies f.
func all(s string, f func(byte) bool) bool {
	for i := range len(s) {
		if !f(s[i]) {
			return false
		}
	}
	return true
}

func allDigits(s string) bool { return s != "" && all(s, isDigit) }

// isDate recognises ISO 8601 dates: YYYY-MM, YYYY-MM-DD, and those with a time after a T.
func isDate(s string) bool {
	if day, clock, ok := strings.Cut(s, "T"); ok {
		return len(day) == len("2006-01-02") && isDate(day) && clock != "" && isDigit(clock[0])
	}
	parts := strings.Split(s, "-")
	if len(parts) < 2 || len(parts) > 3 || len(parts[0]) != 4 {
		return false
	}
	for i, p := range parts {
		if i > 0 && len(p) != 2 || !allDigits(p) {
			return false
		}
	}
	return parts[1] >= "01" && parts[1] <= "12"
}

// isUUID recognises the form of RFC 9562, section 4.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if hyphen := i == 8 || i == 13 || i == 18 || i == 23; hyphen != (s[i] == '-') || !hyphen && !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

// isHex recognises hexadecimal numbers, with or without the name of a digest before them
// (sha256:…), long enough and with digits enough not to be a word.
func isHex(s string) bool {
	if name, sum, ok := strings.Cut(s, ":"); ok {
		return len(sum) >= 2*minToken && strings.HasPrefix(name, "sha") && all(sum, isHexDigit)
	}
	if len(s) < minHex || !all(s, isHexDigit) {
		return false
	}
	digits := 0
	for i := range len(s) {
		if isDigit(s[i]) {
			digits++
		}
	}
	return digits >= 2 || len(s) >= 2*minHex
}

// isEmail recognises an address with a domain of at least two labels.
func isEmail(s string) bool {
	local, domain, ok := strings.Cut(strings.Replace(s, "%40", "@", 1), "@")
	return ok && local != "" && strings.IndexByte(domain, '.') > 0 && !strings.ContainsAny(domain, "@/%")
}

func isIP(s string) bool {
	if strings.IndexByte(s, '.') < 0 && strings.Count(s, ":") < 2 {
		return false
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isRelease recognises the version of a package, of three numbers or more and with what may
// follow them: 1.26.4, v2.0.0-rc.1+build5.
func isRelease(s string) bool {
	s = strings.TrimPrefix(s, "v")
	core := s
	if i := strings.IndexAny(s, "-+"); i >= 0 {
		core = s[:i]
	}
	parts := strings.Split(core, ".")
	if len(parts) < 3 || len(parts) > 5 {
		return false
	}
	for _, p := range parts {
		if !allDigits(p) || len(p) > 8 {
			return false
		}
	}
	return true
}

// isAPIVersion recognises what an API calls its version: v1, v2.1, v1beta1, v1p2beta1. Plain
// numbers and dates are versions only where they lead a path.
func isAPIVersion(s string) bool {
	if len(s) < 2 || len(s) > 12 || s[0] != 'v' && s[0] != 'V' || !isDigit(s[1]) {
		return false
	}
	for rest := s[1:]; rest != ""; {
		n := 0
		for n < len(rest) && (isDigit(rest[n]) || rest[n] == '.') {
			n++
		}
		rest = rest[n:]
		if n == 0 {
			return false
		}
		for _, stage := range []string{"alpha", "beta", "rc", "p"} {
			if after, ok := strings.CutPrefix(rest, stage); ok {
				rest, n = after, 0
				break
			}
		}
		if n != 0 && rest != "" {
			return false
		}
	}
	return true
}

// isToken recognises what looks random: a long run of letters and digits that changes
// between upper case, lower case and digits as often as names do not. Random base 62
// text changes at 62 of 100 places, random base 36 at 40, CamelCase at about 35.
func isToken(s string) bool {
	if len(s) < minToken {
		return false
	}
	var total run
	for piece := range strings.FieldsFuncSeq(s, func(r rune) bool {
		return r >= 0x80 || !isDigit(byte(r)) && !isLower(byte(r)) && !isUpper(byte(r))
	}) {
		r := measure(piece)
		if r.letters+r.digits >= minToken && r.random() || isHex(piece) && len(piece) >= 2*minToken {
			return true
		}
		total.add(r)
	}
	// A token of a URL-safe alphabet may have no long run between its - and _.
	return total.letters+total.digits >= 2*minToken && total.upper && total.lower && total.digits > 0 && total.random()
}

// run is the make-up of some letters and digits.
type run struct {
	letters, digits, changes int
	capitals                 int
	upper, lower             bool
}

func measure(piece string) run {
	var r run
	previous := 0
	for i := range len(piece) {
		var class int
		switch c := piece[i]; {
		case isDigit(c):
			class = 1
			r.digits++
		case isUpper(c):
			class = 2
			r.letters++
			r.capitals++
			r.upper = true
		default:
			class = 3
			r.letters++
			r.lower = true
		}
		if previous != 0 && class != previous {
			r.changes++
		}
		previous = class
	}
	return r
}

func (r *run) add(o run) {
	r.letters += o.letters
	r.digits += o.digits
	r.changes += o.changes
	r.capitals += o.capitals
	r.upper = r.upper || o.upper
	r.lower = r.lower || o.lower
}

func (r run) random() bool {
	n := r.letters + r.digits
	switch {
	case r.digits == 0 && r.capitals*3 < n: // CamelCase
		return false
	case r.upper && r.lower:
		return r.changes*5 >= n*2
	case r.letters > 0 && r.digits > 0:
		return r.changes*5 >= n || r.upper // an AWS key: capitals with a digit here and there
	}
	return false
}
