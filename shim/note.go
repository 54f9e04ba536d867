// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"encoding/json"
	"os"
	"path/filepath"

	"openshell.ai/openshell/internal/fileio"
)

// note is what a bundle says of the node's configuration that it was prepared
// under, for the process that cleans up after a dead shim.
type note struct {
	Config string `json:"config"` // path of the node's configuration, "" for the default
	Root   string `json:"root"`   // the low-level runtime's state directory, without the namespace
}

const noteFile = "openshell.json"

func writeNote(bundle string, n note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return fileio.Replace(filepath.Join(bundle, noteFile), data, 0o600)
}

func readNote(bundle string) (note, error) {
	data, err := os.ReadFile(filepath.Join(bundle, noteFile))
	if err != nil {
		return note{}, err
	}
	var n note
	return n, json.Unmarshal(data, &n)
}
