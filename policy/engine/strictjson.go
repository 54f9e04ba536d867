// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	"openshell.ai/openshell/internal/printable"
)

// maxDepth is how deep JSON values and GraphQL selections may be nested:
// OpenShell's parsers have the same limit.
const maxDepth = 128

// readJSON parses a whole JSON text as map[string]any, []any, string,
// json.Number, bool or nil. What servers could read in different ways is an
// error: repeated keys, invalid UTF-8, anything after the value, deep nesting.
func readJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	if !json.Valid(data) {
		return nil, errors.New("not valid JSON")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return readValue(d, 0)
}

func readValue(d *json.Decoder, depth int) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, composite := token.(json.Delim)
	switch {
	case !composite:
		return token, nil
	case depth == maxDepth:
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	case delim == '[':
		array := []any{}
		for d.More() {
			value, err := readValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
		_, err = d.Token()
		return array, err
	}
	object := map[string]any{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if _, twice := object[key]; twice {
			return nil, fmt.Errorf("repeated key %s", printable.Brief(key))
		}
		if object[key], err = readValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return object, err
}

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
	if err != nil || mediaType != "application/json" && !strings.HasSuffix(mediaType, "+json") && !slices.Contains(further, mediaType) {
		return "", fmt.Errorf("Content-Type must be application/json, not %s", printable.Brief(contentType))
	}
	if charset, given := params["charset"]; given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return "", fmt.Errorf("charset must be utf-8, not %s", printable.Brief(charset))
	}
	return mediaType, nil
}
