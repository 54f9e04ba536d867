// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"

	"github.com/docker/go-units"
	"go.yaml.in/yaml/v4"
)

// Size is a number of bytes, written with a binary unit: 256MiB, 1GiB.
type Size int64

// String returns the size as it is written.
func (s Size) String() string { return units.CustomSize("%.12g%s", float64(s), 1024, binaryUnits) }

var binaryUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalYAML implements yaml.Unmarshaler. A bare number is no size: nobody
// could tell what it counts.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		return fmt.Errorf("want a size with its unit")
	}
	bytes, err := units.RAMInBytes(n.Value)
	*s = Size(bytes)
	return err
}
