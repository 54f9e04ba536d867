// SPDX-License-Identifier: Apache-2.0

package learn

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

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
