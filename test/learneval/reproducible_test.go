// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"reflect"
	"testing"
)

// The figures are the same each time: what draws is seeded, and nothing depends on the order of a map.
func TestFiguresAreReproducible(t *testing.T) {
	apis := sample(t)
	s := Sampling{K: 10, Distinct: true}
	first := EvaluateAll(apis, OpenShell, s)
	for range 3 {
		for i, r := range EvaluateAll(apis, OpenShell, s) {
			if !reflect.DeepEqual(r, first[i]) {
				t.Errorf("%s: %+v, then %+v", r.API.Name, first[i].Score, r.Score)
			}
		}
	}
}

// Of operations that differ only behind a path's `#`, the same one is taken each time.
func TestParseIsReproducible(t *testing.T) {
	description := []byte(`{"openapi":"3.0.0","paths":{
		"/u/{id}#a":{"get":{"parameters":[{"name":"id","in":"path","schema":{"type":"string","example":"a"}}]}},
		"/u/{id}#b":{"get":{"parameters":[{"name":"id","in":"path","schema":{"type":"string","example":"b"}}]}},
		"/u/{id}#c":{"get":{"parameters":[{"name":"id","in":"path","schema":{"type":"string","example":"c"}}]}}}}`)
	for range 20 {
		api, err := Parse("p/a", description)
		if err != nil {
			t.Fatal(err)
		}
		if id := api.schema(&api.Operations[0], "id"); len(api.Operations) != 1 || id.Example != "a" {
			t.Fatalf("%+v, id %+v", api.Operations, id)
		}
	}
}
