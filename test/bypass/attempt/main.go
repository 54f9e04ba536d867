// SPDX-License-Identifier: Apache-2.0

// Command attempt does inside a sandbox what tries to get past it, where a shell
// script or test/client cannot. It is one static program; each subcommand has a
// file of its own and puts itself into [commands].
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// commands do one thing each, with the arguments after their names. What they
// print is for the reader of a failed test: judged is what happened outside.
var commands = map[string]func(args []string) error{}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: attempt", strings.Join(slices.Sorted(maps.Keys(commands)), "|"), "[ARGUMENT…]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "attempt:", err)
		os.Exit(1)
	}
}
