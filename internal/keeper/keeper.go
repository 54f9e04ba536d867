// SPDX-License-Identifier: Apache-2.0

// Package keeper is the small process that outlives a sandbox's supervisor. It
// holds open what the supervisor has open: the network namespaces, the listening
// sockets and the memory with what only the supervisor knew. When that dies, the
// keeper starts it again with all of this, from the same executable. It decides
// nothing and reads nothing of what it holds.
//
// The two know of each other by a pipe: its end, without a goodbye, is the
// supervisor's death.
package keeper

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is the program's file name.
const Name = "openshell-keeper"

// Descriptors of the keeper, and of a supervisor that it has started.
const (
	// PipeFD is the pipe: the keeper reads, the supervisor has the other end.
	PipeFD = 3
	// ProgramFD is the supervisor's executable.
	ProgramFD = 4
	// HeldFD is the first of those that are held. They have the same numbers on
	// both sides.
	HeldFD = 5
)

// Goodbye is what a supervisor writes that ends for good.
const Goodbye = "goodbye"

// Command is the argument by which the supervisor's program takes over.
const Command = "supervise-again"

// A supervisor that dies maxDeaths times within a period stays dead: there is
// something wrong that another start does not mend.
const (
	maxDeaths = 3
	period    = time.Minute
)

// Arguments are the keeper's command line.
type Arguments struct {
	Log    string // the supervisor's log, which the keeper appends to
	Closed string // a file that says why the supervisor is not started again
	Held   int    // descriptors from HeldFD on
}

// List returns the arguments as the program takes them.
func (a Arguments) List() []string { return []string{a.Log, a.Closed, strconv.Itoa(a.Held)} }

func parse(args []string) (a Arguments, err error) {
	if len(args) != 3 {
		return a, fmt.Errorf("is started by a sandbox's supervisor, and by nobody else")
	}
	a.Log, a.Closed = args[0], args[1]
	a.Held, err = strconv.Atoi(args[2])
	return a, err
}

// Run keeps a supervisor until one says goodbye, or has died too often.
func Run(args []string) error {
	a, err := parse(args)
	if err != nil {
		return err
	}
	// It ends with its supervisor, whose containers go on meanwhile.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	// Nobody is to read the CA's key out of what it holds.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	for fd := PipeFD; fd < HeldFD+a.Held; fd++ {
		unix.CloseOnExec(fd)
	}
	pipe := os.NewFile(PipeFD, "pipe")
	var child *os.Process // nil: the supervisor that started the keeper
	var deaths deaths
	for {
		said, _ := io.ReadAll(pipe)
		pipe.Close()
		if string(said) == Goodbye {
			return nil
		}
		how := "ended"
		if child != nil {
			state, err := child.Wait()
			if err == nil && state.Success() {
				return nil // it found that there is nothing to supervise any more
			}
			how = fmt.Sprint("ended: ", state)
		}
		if deaths.add(time.Now()) {
			return a.giveUp(fmt.Sprintf("the supervisor %s, for the third time in a minute: it is not started again, "+
				"and nothing gets through any more: end the container, and see %s", how, a.Log))
		}
		if pipe, child, err = a.start(); err != nil {
			return a.giveUp(fmt.Sprintf("the supervisor %s, and cannot be started again: %v", how, err))
		}
		a.say(fmt.Sprintf("the supervisor %s: it is started again", how))
	}
}

// deaths are those of the last period.
type deaths []time.Time

// add notes one, and reports whether it is one too many.
func (d *deaths) add(now time.Time) bool {
	recent := (*d)[:0]
	for _, t := range *d {
		if now.Sub(t) < period {
			recent = append(recent, t)
		}
	}
	*d = append(recent, now)
	return len(*d) >= maxDeaths
}

// start starts a supervisor that takes over. It returns the new pipe.
func (a Arguments) start() (*os.File, *os.Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	defer null.Close()
	messages := null
	if log, err := a.open(); err == nil {
		defer log.Close()
		messages = log
	}
	files := []*os.File{null, messages, messages, w}
	for fd := ProgramFD; fd < HeldFD+a.Held; fd++ {
		files = append(files, borrowed(fd))
	}
	child, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", ProgramFD), []string{"openshell", Command},
		&os.ProcAttr{Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		r.Close()
	}
	return r, child, err
}

// files are those of descriptors that stay open: without a reference a File's is
// closed.
var files = map[int]*os.File{}

func borrowed(fd int) *os.File {
	if files[fd] == nil {
		files[fd] = os.NewFile(uintptr(fd), "held")
	}
	return files[fd]
}

// giveUp leaves a word for whoever lists or removes the sandbox.
func (a Arguments) giveUp(why string) error {
	a.say(why)
	if err := os.WriteFile(a.Closed, []byte(why+"\n"), 0o600); err != nil {
		a.say(err.Error())
	}
	return fmt.Errorf("%s", why)
}

// say appends to the supervisor's log, in the form of its own messages.
func (a Arguments) say(text string) {
	if log, err := a.open(); err == nil {
		fmt.Fprintf(log, "time=%s level=ERROR msg=%q keeper=%d\n", time.Now().Format(time.RFC3339Nano), text, os.Getpid())
		log.Close()
	}
}

func (a Arguments) open() (*os.File, error) {
	return os.OpenFile(a.Log, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}
