// SPDX-License-Identifier: Apache-2.0

// Package strictjson owns reading JSON that others than its writer may read in another way: what
// readers differ on is an error (RFC 8259 section 4).
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"openshell.ai/openshell/internal/printable"
)

// MaxDepth is how deep values may be nested: OpenShell's parsers have the same limit.
const MaxDepth = 128

// RepeatedKey is the error for an object that has a key twice.
type RepeatedKey struct{ Key string }

func (e *RepeatedKey) Error() string { return "repeated key " + printable.Brief(e.Key) }

// Parse reads a whole JSON text as map[string]any, []any, string, json.Number, bool or nil. Repeated
// keys, invalid UTF-8, anything after the value and deep nesting are errors.
func Parse(data []byte) (any, error) {
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
	case depth == MaxDepth:
		return nil, fmt.Errorf("nested deeper than %d", MaxDepth)
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
			return nil, &RepeatedKey{key}
		}
		if object[key], err = readValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return object, err
}

// Object splits a JSON object into its members, without looking into them.
func Object(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if _, twice := members[key]; twice {
			return nil, &RepeatedKey{key}
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		members[key] = value
	}
	_, err := d.Token()
	return members, err
}
