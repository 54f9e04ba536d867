// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"openshell.ai/openshell/internal/printable"
)

// checkKeys refuses a key that differs only in case from one that decides:
// there are servers that read it as that one.
func checkKeys(object map[string]any, deciding ...string) error {
	for key := range object {
		for _, name := range deciding {
			if key != name && strings.EqualFold(key, name) {
				return fmt.Errorf("key %s differs from %q only in case", printable.Brief(key), name)
			}
		}
	}
	return nil
}

// stringMember returns a member that must be a string if it is there. Null is
// the same as absent. A string with an escape that stands for no character is
// refused: what servers make of it differs.
func stringMember(object map[string]any, key string) (string, error) {
	switch value := object[key].(type) {
	case nil:
		return "", nil
	case string:
		if strings.ContainsRune(value, utf8.RuneError) {
			return "", fmt.Errorf("%q has an invalid character", key)
		}
		return value, nil
	default:
		return "", fmt.Errorf("%q must be a string", key)
	}
}

// checkMediaType refuses a body that a server could read as something else
// than JSON in UTF-8. It returns the media type, which may also be one of the
// further ones.
func checkMediaType(contentType string, further ...string) (string, error) {
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") &&
		!slices.Contains(further, mediaType) {
		return "", fmt.Errorf("Content-Type must be application/json, not %s", printable.Brief(contentType))
	}
	if charset, given := params["charset"]; given && !strings.EqualFold(charset, "utf-8") &&
		!strings.EqualFold(charset, "us-ascii") {
		return "", fmt.Errorf("charset must be utf-8, not %s", printable.Brief(charset))
	}
	return mediaType, nil
}
