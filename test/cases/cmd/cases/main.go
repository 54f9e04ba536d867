// SPDX-License-Identifier: Apache-2.0

// Command cases runs the tests that show rows of the table of package cases, and writes the table
// with their verdicts. It is run in the root of the module, by make cases.
//
//	cases [-list] [-row TABLE/NAME]… -page FILE
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"openshell.ai/openshell/test/cases"
)

func main() {
	var only []string
	list := flag.Bool("list", false, "write which tests show which row, and run none")
	page := flag.String("page", "", "the `FILE` to write (required, but for -list and -row)")
	flag.Func("row", "run only the tests of this row, and write no file", func(row string) error {
		if !cases.Known(row) {
			return errors.New("there is no such row")
		}
		only = append(only, row)
		return nil
	})
	flag.Parse()
	found, err := find(".")
	if err == nil {
		switch {
		case *list:
			err = writeList(os.Stdout, found)
		case *page == "" && only == nil:
			err = errors.New("-page is missing")
		default:
			err = show(found, only, *page)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cases:", err)
		os.Exit(1)
	}
}

// show runs tests and writes what came of them.
func show(found []test, only []string, page string) error {
	if only != nil {
		found = slices.DeleteFunc(found, func(t test) bool {
			return !slices.ContainsFunc(t.rows, func(row string) bool { return slices.Contains(only, row) })
		})
	}
	records, err := run(found)
	if err != nil {
		return err
	}
	v := judge(found, records)
	if only == nil {
		if err := os.WriteFile(page, render(v), 0o644); err != nil {
			return err
		}
	}
	return summarize(os.Stdout, v, only)
}

// run runs the tests of each package, and returns what they recorded. That one fails shows in its
// rows.
func run(found []test) ([]cases.Record, error) {
	file, err := os.CreateTemp("", "cases-")
	if err != nil {
		return nil, err
	}
	file.Close()
	defer os.Remove(file.Name())
	packages := map[string][]string{}
	for _, t := range found {
		packages[t.dir] = append(packages[t.dir], t.name)
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		cmd := exec.Command("go", "test", "-count=1", "-timeout=30m", "-run", "^("+strings.Join(packages[dir], "|")+")$", "./"+filepath.ToSlash(dir))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), "OPENSHELL_CASES="+file.Name())
		if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
			return nil, err
		}
	}
	data, err := os.ReadFile(file.Name())
	if err != nil {
		return nil, err
	}
	var records []cases.Record
	for line := range strings.Lines(string(data)) {
		var r cases.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		records = append(records, r)
	}
	return records, nil
}
