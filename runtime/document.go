// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// document is a JSON file that is edited in place: what is not touched keeps
// its meaning, fields this program has never heard of included.
type document struct{ root map[string]any }

// maxSpec bounds a config.json, in bytes. Engines with many mounts write some
// hundred kilobytes.
const maxSpec = 16 << 20

func parseDocument(data []byte) (document, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // resource limits do not fit a float64
	var root map[string]any
	if err := d.Decode(&root); err != nil {
		return document{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) || root == nil {
		return document{}, errors.New("not one JSON object")
	}
	return document{root}, nil
}

// set puts a value at a path, making the objects on the way. A nil value, or
// an empty list, removes what is there.
func (d document) set(value any, path ...string) error {
	generic, err := generalize(value)
	if err != nil {
		return err
	}
	at, last, err := d.parent(path)
	if err != nil {
		return err
	}
	if list, ok := generic.([]any); generic == nil || ok && len(list) == 0 {
		delete(at, last)
		return nil
	}
	at[last] = generic
	return nil
}

// setList puts a list of objects at a path. An object that is as it was keeps
// its JSON, with the fields that T lacks.
func setList[T any](d document, list []T, path ...string) error {
	at, last, err := d.parent(path)
	if err != nil {
		return err
	}
	before, _ := at[last].([]any)
	known := make([]T, len(before))
	for i, object := range before {
		if err := specialize(object, &known[i]); err != nil {
			return err
		}
	}
	after := make([]any, 0, len(list))
	next := 0
	for _, v := range list {
		same := slices.IndexFunc(known[next:], func(k T) bool { return reflect.DeepEqual(k, v) })
		if same >= 0 {
			next += same + 1
			after = append(after, before[next-1])
			continue
		}
		object, err := generalize(v)
		if err != nil {
			return err
		}
		after = append(after, object)
	}
	at[last] = after
	return nil
}

// parent returns the object that holds the value of a path, and its key there.
func (d document) parent(path []string) (object map[string]any, key string, err error) {
	at := d.root
	for _, key := range path[:len(path)-1] {
		if err := respell(at, key); err != nil {
			return nil, "", err
		}
		next, ok := at[key].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[key] = next
		}
		at = next
	}
	key = path[len(path)-1]
	return at, key, respell(at, key)
}

// respell gives a field its right name. Go's decoder, and so runc, takes any
// case: a field in another spelling would add to what is written.
func respell(object map[string]any, key string) error {
	for other, value := range object {
		if other == key || !strings.EqualFold(other, key) {
			continue
		}
		if _, ok := object[key]; ok {
			return fmt.Errorf("fields %q and %q are the same", key, other)
		}
		object[key] = value
		delete(object, other)
	}
	return nil
}

// generalize turns a value into what decoding its JSON gives.
func generalize(value any) (v any, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// specialize is the reverse of generalize.
func specialize(value, into any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

func (d document) bytes() ([]byte, error) { return json.Marshal(d.root) }
