// SPDX-License-Identifier: Apache-2.0

// Package app dispatches openshell's command line: the OCI runtime commands to
// package runtime, the operator's to cobra. It owns no command's meaning.
package app

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"

	"openshell.ai/openshell/cmd/openshell/operator"
	"openshell.ai/openshell/cmd/openshell/try"
	"openshell.ai/openshell/internal/config"
	"openshell.ai/openshell/internal/keeper"
	"openshell.ai/openshell/internal/sandbox"
	"openshell.ai/openshell/internal/version"
	"openshell.ai/openshell/runtime"
)

// Run carries out a command line and returns the exit status.
func Run(args []string) int {
	inv := runtime.ParseArgs(args)
	switch {
	case inv.Command == sandbox.SuperviseCommand:
		return supervise(sandbox.Supervise)
	case inv.Command == keeper.Command:
		return supervise(sandbox.SuperviseAgain)
	case inv.Command == "" && slices.ContainsFunc(args, isVersion):
		return printVersion()
	case runtime.IsCommand(inv.Command), inv.Command == runtime.AdmitCommand:
		return runOCI(inv)
	case inv.Command != "" && (inv.Root != "" || inv.Log != "") && !isOperator(inv.Command):
		// An engine's call: the low-level runtime may know more commands.
		return runOCI(inv)
	}
	args = configBehindCommand(args)
	switch {
	case len(args) == 0 || strings.HasPrefix(args[0], "-") || args[0] == "help" || isOperator(args[0]):
		return operate(args)
	case args[0] == "version":
		return printVersion()
	}
	return operator.Report(os.Stderr, unknownCommand(args[0]))
}

// configBehindCommand puts the operator's --config, which people also write in front of the command, behind it.
func configBehindCommand(args []string) []string {
	for _, n := range []int{1, 2} { // --config=FILE, or two arguments
		if len(args) > n && (n == 1 && strings.HasPrefix(args[0], "--config=") || n == 2 && args[0] == "--config") {
			return slices.Concat(args[n:n+1], args[:n], args[n+1:])
		}
	}
	return args
}

func isVersion(arg string) bool {
	return slices.Contains([]string{"--version", "-version", "-v", "--v"}, arg)
}

// runOCI carries out a command that engines call.
func runOCI(inv runtime.Invocation) int {
	// A short-lived command shares two cores with the workload's start; collecting
	// garbage of some megabytes is not worth it. A supervisor does collect.
	debug.SetGCPercent(400)
	status, err := func() (int, error) {
		c, err := config.Load("")
		if err != nil {
			return 1, err
		}
		rt, err := runtime.New(c)
		if err != nil {
			return 1, err
		}
		rt.Version = version.String()
		if rt.Attended, err = try.Attended(); err != nil {
			return 1, err
		}
		return rt.Run(context.Background(), inv)
	}()
	if err != nil {
		runtime.Report(inv, err)
	}
	return status
}

func supervise(do func(*config.Config) error) int {
	c, err := config.Load("")
	if err == nil {
		err = do(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openshell supervise: "+err.Error())
		return 1
	}
	return 0
}

// printVersion prints openshell's version and, as engines expect of a runtime,
// that of the low-level runtime's specification.
func printVersion() int {
	fmt.Printf("openshell version %s\n", version.String())
	c, err := config.Load("")
	if err != nil {
		return 0
	}
	out, err := exec.Command(c.Runtime, "--version").Output()
	if err == nil {
		_, _ = os.Stdout.Write(out)
	}
	return 0
}
