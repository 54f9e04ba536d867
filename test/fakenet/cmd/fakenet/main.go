// SPDX-License-Identifier: Apache-2.0

// Command fakenet runs a program in a fake internet (package fakenet).
//
//	fakenet run [--config-out FILE] [-v] -- CMD [ARG…]
//
// CMD gets the outer network namespace, OPENSHELL_CONFIG with the path of a node
// configuration for it, FAKENET_CONTROL with the path of the control socket and
// the other FAKENET_ variables. Signals are passed to it, and its exit status is
// the command's own: 128 plus the number where a signal ended it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"openshell.ai/openshell/test/fakenet"
)

func main() {
	// CMD asks for SIGKILL when its parent thread dies; the main thread dies
	// with the process and not before.
	runtime.LockOSThread()

	root := &cobra.Command{
		Use:           "fakenet",
		Short:         "A fake internet for tests and demonstrations",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand())
	err := root.Execute()
	if status := new(exec.ExitError); errors.As(err, &status) {
		os.Exit(exitCode(status))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fakenet:", err)
		os.Exit(125)
	}
}

func runCommand() *cobra.Command {
	var configOut string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Run a program in the outer namespace of a new fake internet",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return run(args, configOut, verbose)
		},
	}
	cmd.Flags().StringVar(&configOut, "config-out", "", "where to write the node configuration (default: a temporary file)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what the servers complain about")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func run(args []string, configOut string, verbose bool) (err error) {
	var opts fakenet.Options
	if verbose {
		opts.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	n, err := fakenet.New(opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	if configOut == "" {
		configOut = filepath.Join(n.Dir(), "config.yaml")
	}
	if configOut, err = filepath.Abs(configOut); err != nil {
		return err
	}
	if err := n.WriteConfig(configOut); err != nil {
		return err
	}
	control := filepath.Join(n.Dir(), "control.sock")
	if err := n.ServeControl(control); err != nil {
		return err
	}

	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(append(os.Environ(), n.Env()...), "OPENSHELL_CONFIG="+configOut, "FAKENET_CONTROL="+control)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return start(n, cmd)
}

// start runs cmd in the outer namespace to its end, passing signals on.
func start(n *fakenet.Net, cmd *exec.Cmd) error {
	// Caught before the start: a signal in between must not end this process
	// first.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
	defer signal.Stop(signals)

	if err := n.Do(cmd.Start); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		for {
			select {
			case s := <-signals:
				// It may be gone already; Wait tells.
				_ = cmd.Process.Signal(s)
			case <-ctx.Done():
				return
			}
		}
	}()
	return cmd.Wait()
}

// exitCode follows the shells: 128 plus the signal's number.
func exitCode(status *exec.ExitError) int {
	if wait, ok := status.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return 128 + int(wait.Signal())
	}
	return status.ExitCode()
}
