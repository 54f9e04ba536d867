// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"openshell.ai/openshell/annotations"
)

// versionAnnotation is where features.json tells openshell's version.
const versionAnnotation = annotations.Prefix + "version"

// unsafeAnnotations may change what the runtime does, so that engines should not
// take them from just anybody (runtime-spec, features.md). The specification
// has prefixes end with a dot only; the prefix is there for people, the keys
// for programs.
var unsafeAnnotations = append([]string{annotations.Prefix}, annotations.Keys()...)

// features prints what the low-level runtime can do, and that this is openshell.
// One that has no such command, or is asked for more than that, speaks for itself.
func (r *Runtime) features(ctx context.Context, inv Invocation) (int, error) {
	if inv.commandAt != len(inv.Args)-1 {
		return r.replace(inv.Args)
	}
	out, err := exec.CommandContext(ctx, r.lowPath, inv.Args...).Output()
	if err != nil {
		return r.replace(inv.Args)
	}
	described, err := describe(out, r.Version)
	if err != nil {
		return r.replace(inv.Args)
	}
	if _, err := os.Stdout.Write(described); err != nil {
		return 1, fmt.Errorf("print features: %w", err)
	}
	return 0, nil
}

// describe adds openshell to a features.json.
func describe(features []byte, version string) ([]byte, error) {
	doc, err := parseDocument(features)
	if err != nil {
		return nil, err
	}
	if known, ok := doc.root["annotations"]; ok {
		if _, ok := known.(map[string]any); !ok {
			return nil, errors.New("annotations: not an object")
		}
	}
	if err := doc.set(version, "annotations", versionAnnotation); err != nil {
		return nil, err
	}
	const key = "potentiallyUnsafeConfigAnnotations"
	list, _ := doc.root[key].([]any)
	for _, a := range unsafeAnnotations {
		list = append(list, a)
	}
	doc.root[key] = list
	out, err := json.MarshalIndent(doc.root, "", "    ")
	return append(out, '\n'), err
}
