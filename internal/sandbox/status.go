// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// State is what becomes of a sandbox. Each of them is a normal one for whoever
// lists, joins, reloads or removes sandboxes: none is an error.
type State string

const (
	Starting   State = "starting"   // it is being made; nothing runs in it yet
	Running    State = "running"    // its supervisor is at work
	Ending     State = "ending"     // it lets nothing through and takes nothing more, but writes down what it learned
	Restarting State = "restarting" // its supervisor has died, and is being started again
	Dead       State = "dead"       // its supervisor ended without taking it down: nothing gets through
	Unreadable State = "unreadable" // what it says of itself cannot be read
)

// State returns what has become of the sandbox by now, as far as its file and
// its supervisor tell.
func (i Info) State() State {
	switch {
	case i.Broken != nil:
		return Unreadable
	case !i.Alive() && i.kept():
		return Restarting
	case !i.Alive():
		return Dead
	case i.LastState == "":
		return Running // a supervisor of an earlier version, which knew no states
	}
	return i.LastState
}

// listens reports whether some process has the control socket of a sandbox's
// directory. It reports whether there is a supervisor where the file does not: one
// that is stopped listens too.
func listens(dir string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := dialUnix(ctx, filepath.Join(dir, controlSocket))
	if err == nil {
		conn.Close()
	}
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) &&
		!errors.Is(err, unix.ENOTDIR)
}
