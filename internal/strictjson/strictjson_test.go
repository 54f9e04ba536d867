// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]any{
		`1`: json.Number("1"), `null`: nil, ` "a" `: "a", `[]`: []any{}, `{}`: map[string]any{},
		`{"a":[1,{"b":true}],"A":null}`:                                   map[string]any{"a": []any{json.Number("1"), map[string]any{"b": true}}, "A": nil},
		strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1): nil,
	} {
		got, err := Parse([]byte(text))
		if err != nil || want != nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "{", "{}{}", "[1,]", `{"a":1} x`, "{\"a\":\"\xff\"}", `{1:2}`,
		strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
	} {
		if v, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.40q is read as %v", text, v)
		}
	}
}

func TestRepeatedKey(t *testing.T) {
	for text, key := range map[string]string{
		`{"a":1,"a":1}`: "a", `{"a":{"b":1,"c":{},"b":2}}`: "b", `[{"x":1,"\u0078":2}]`: "x", `{"":1,"":2}`: "",
	} {
		var twice *RepeatedKey
		if v, err := Parse([]byte(text)); !errors.As(err, &twice) || twice.Key != key {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
}

func TestObject(t *testing.T) {
	got, err := Object([]byte(`{"a": {"b":1,"b":2}, "c": 3}`))
	if err != nil || len(got) != 2 || string(got["c"]) != "3" || string(got["a"]) != `{"b":1,"b":2}` {
		t.Errorf("%s, %v", got, err)
	}
	for _, text := range []string{"", "[]", "null", `{"a":1,"a":2}`, `{"a":`, `{"a":1`} {
		if v, err := Object([]byte(text)); err == nil {
			t.Errorf("%s is read as %s", text, v)
		}
	}
}

// FuzzParse: what is taken means the same to encoding/json, the laxest of readers.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":true}],"A":null}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := Parse(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var lax, strict any
		if err := errors.Join(json.Unmarshal(data, &lax), json.Unmarshal(again, &strict)); err != nil || !reflect.DeepEqual(lax, strict) {
			t.Errorf("%q is %v to others, %v here: %v", data, lax, strict, err)
		}
	})
}
