// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"reflect"
	"slices"
)

// Merge returns the effective policy: base ∪ learned, sharing nothing with
// either. The learned rules are marked and keep their keys, with "_learned"
// added where the base has another rule of the same key; a learned rule that the
// base has already, as an exported policy does, is not repeated. The lists of
// filesystem paths are unioned, and sorted. How Landlock and the process are
// treated is the base's to say. A nil policy adds nothing.
//
// Of policies that were learned, either may be the base: what is allowed does not
// depend on it, nor does what Marshal writes, unless they use one key for
// different rules.
func Merge(base, learned *Policy) *Policy {
	if base == nil {
		base = &Policy{Version: 1}
	}
	merged := base.Clone()
	if learned == nil {
		return merged
	}
	if learned.Filesystem != nil {
		files := merged.FilesystemRules()
		files.IncludeWorkdir = files.IncludeWorkdir || learned.Filesystem.IncludeWorkdir
		files.ReadOnly = sortedSet(slices.Concat(files.ReadOnly, learned.Filesystem.ReadOnly))
		files.ReadWrite = sortedSet(slices.Concat(files.ReadWrite, learned.Filesystem.ReadWrite))
		merged.Filesystem = &files
	}
	for _, key := range slices.Sorted(maps.Keys(learned.Network)) {
		if r := learned.Network[key]; r == nil || repeated(base.Network, key, r) {
			continue
		}
		r := learned.Network[key].Clone()
		r.Learned = true
		if merged.Network == nil {
			merged.Network = map[string]*Rule{}
		}
		merged.Network[freeKey(key, base.Network, learned.Network, merged.Network)] = r
	}
	return merged
}

// freeKey returns the key, or one made from it that nobody uses: neither what
// is merged already nor what is still to come.
func freeKey(key string, base, learned, merged map[string]*Rule) string {
	if base[key] == nil && merged[key] == nil {
		return key
	}
	for {
		key += "_learned"
		if merged[key] == nil && learned[key] == nil {
			return key
		}
	}
}

// repeated reports whether the base has a learned rule already, under its key or
// one that freeKey made from it.
func repeated(base map[string]*Rule, key string, r *Rule) bool {
	for ; base[key] != nil; key += "_learned" {
		if base[key].Learned && RuleDigest(base[key]) == RuleDigest(r) {
			return true
		}
	}
	return false
}

// Clone returns a deep copy.
func (p *Policy) Clone() *Policy { return deepCopy(reflect.ValueOf(p)).Interface().(*Policy) }

// Clone returns a deep copy.
func (r *Rule) Clone() *Rule { return deepCopy(reflect.ValueOf(r)).Interface().(*Rule) }

// deepCopy copies plain data: structures of exported fields, pointers, lists, maps and scalars.
func deepCopy(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			c.Field(i).Set(deepCopy(v.Field(i)))
		}
		return c
	case reflect.Pointer:
		if !v.IsNil() {
			c.Set(reflect.New(v.Type().Elem()))
			c.Elem().Set(deepCopy(v.Elem()))
		}
		return c
	case reflect.Slice:
		if !v.IsNil() {
			c.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				c.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
		return c
	case reflect.Map:
		if !v.IsNil() {
			c.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
			for key, value := range v.Seq2() {
				c.SetMapIndex(key, deepCopy(value))
			}
		}
		return c
	}
	return v
}
