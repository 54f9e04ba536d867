package policy

import (
	"errors"
	"net/url"
	"strings"
)

// maxPath is the longest path of a request target, in bytes, as it is sent and
// in canonical form.
const maxPath = 4096

// CanonicalTarget turns an HTTP request target, in origin or absolute form,
// into the one path that is both decided on and sent upstream, so that the two
// cannot differ: unreserved bytes are decoded, all others escaped in upper
// case, dot segments resolved (RFC 3986 section 5.2.4, but above the root is an
// error), repeated slashes collapsed and ";parameters" dropped. An encoded
// slash is an error unless allowEncodedSlash; it stays encoded then. The query
// is returned as it is.
func CanonicalTarget(target string, allowEncodedSlash bool) (path, rawQuery string, err error) {
	for i := range len(target) {
		switch b := target[i]; {
		case b < 0x20 || b == 0x7f:
			return "", "", errors.New("request-target contains a null or control byte")
		case b == ' ':
			return "", "", errors.New("request-target contains a space")
		case b >= 0x80:
			return "", "", errors.New("request-target contains raw non-ASCII bytes; non-ASCII must be percent-encoded")
		case b == '#':
			return "", "", errors.New("request-target contains a fragment")
		}
	}
	raw, rawQuery, _ := strings.Cut(target, "?")
	raw = originForm(raw)
	if raw == "" {
		raw = "/"
	}
	if raw[0] != '/' {
		return "", "", errors.New("request-target is not a valid origin-form path")
	}
	if len(raw) > maxPath {
		return "", "", errors.New("request-target exceeds the configured maximum length")
	}
	if isCanonical(raw) { // as nearly every target is
		return raw, rawQuery, nil
	}
	decoded, err := decodePath(raw, allowEncodedSlash)
	if err != nil {
		return "", "", err
	}
	segments, err := resolveDots(strings.Split(decoded[1:], "/"))
	if err != nil {
		return "", "", err
	}
	if path = encodePath(segments); len(path) > maxPath {
		return "", "", errors.New("request-target exceeds the configured maximum length once it is escaped")
	}
	return path, rawQuery, nil
}

// isCanonical reports whether a path is its own canonical form. It may say no
// of one that is: escapes are left to the decoder.
func isCanonical(path string) bool {
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

// encodedSlash stands for "%2F" in a decoded path. Control bytes are refused
// before, so no other byte decodes to it.
const encodedSlash = 0x01

func decodePath(raw string, allowEncodedSlash bool) (string, error) {
	var out strings.Builder
	out.Grow(len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			out.WriteByte(raw[i])
			continue
		}
		if i+2 >= len(raw) {
			return "", errors.New("request-target contains an invalid percent-encoded sequence")
		}
		unescaped, err := url.PathUnescape(raw[i : i+3])
		if err != nil {
			return "", errors.New("request-target contains an invalid percent-encoded sequence")
		}
		b := unescaped[0]
		switch {
		case b < 0x20 || b == 0x7f:
			return "", errors.New("request-target contains a null or control byte")
		case b == '/' && !allowEncodedSlash:
			return "", errors.New("request-target contains an encoded '/' (%2F) which is not allowed on this endpoint")
		case b == '/':
			b = encodedSlash
		}
		out.WriteByte(b)
		i += 2
	}
	return out.String(), nil
}

// resolveDots drops parameters first: "..;x" must not survive as "..".
func resolveDots(segments []string) ([]string, error) {
	resolved := make([]string, 0, len(segments))
	for i, segment := range segments {
		last := i == len(segments)-1
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "..":
			if len(resolved) == 0 {
				return nil, errors.New("request-target's `..` segment would escape the path root")
			}
			resolved = resolved[:len(resolved)-1]
			segment = ""
		case ".":
			segment = ""
		}
		if segment != "" || last {
			resolved = append(resolved, segment)
		}
		// An encoded slash keeps a dot segment inside its segment, where an
		// upstream that decodes it would find it.
		for part := range strings.SplitSeq(segment, string(rune(encodedSlash))) {
			if dots(part) {
				return nil, errors.New("request-target still contains a `.`/`..` segment after canonicalization")
			}
		}
	}
	return resolved, nil
}

func encodePath(segments []string) string {
	const upperHex = "0123456789ABCDEF"
	var out strings.Builder
	for _, segment := range segments {
		out.WriteByte('/')
		for i := range len(segment) {
			switch b := segment[i]; {
			case b == encodedSlash:
				out.WriteString("%2F")
			case isPchar(b):
				out.WriteByte(b)
			default:
				out.Write([]byte{'%', upperHex[b>>4], upperHex[b&15]})
			}
		}
	}
	return out.String()
}

// isPchar reports whether a byte stands for itself in a path segment: RFC 3986
// pchar, without ';', which starts the parameters that are dropped.
func isPchar(b byte) bool { return pchars[b] }

var pchars = func() (is [256]bool) {
	const punctuation = "-._~!$&'()*+,=:@"
	for i := range is {
		b := byte(i)
		is[i] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte(punctuation, b) >= 0
	}
	return is
}()
