// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"openshell.ai/openshell/internal/usertext"
)

// The exit codes besides 0.
const (
	exitFailed  = 1
	exitInvalid = 2 // a policy does not validate
)

// exitError ends a command that has said itself what went wrong.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit %d", e.code) }

// Report says on one line what went wrong with a command, unless the command has
// said it already, and returns the exit code: 0 where err is nil.
func Report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var said *exitError
	if errors.As(err, &said) {
		return said.code
	}
	text := oneLine(err)
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		text += ": run it as root"
	}
	fmt.Fprintf(w, "openshell: %s\n", plain(text))
	return exitFailed
}

// oneLine is an error's text without the line ends of errors.Join.
func oneLine(err error) string { return usertext.OneLine(err) }
