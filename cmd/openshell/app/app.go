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
	case inv.Command == "" || inv.Command == "help" || isOperator(inv.Command):
		return operate(args)
	}
	return runOCI(inv)
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
