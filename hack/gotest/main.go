// SPDX-License-Identifier: Apache-2.0

// Command gotest runs go test and prints what it prints, and besides which tests
// were skipped, and why. A test that was skipped though this machine could run
// it fails its package: a suite that quietly tests nothing must not look well.
//
//	go run ./hack/gotest [go test's flags] PACKAGE…
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
)

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stderr = os.Stdin, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(2)
	}
	r := newReport(os.Stdout, thisMachine())
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			r.add(line)
		}
		if err != nil {
			break // the end, or cmd.Wait tells
		}
	}
	if err := cmd.Wait(); err != nil || r.unexcused > 0 {
		os.Exit(1)
	}
}
