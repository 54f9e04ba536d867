// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/netns"
)

// journal is what only a sandbox's supervisor knows, for the one that takes over
// when it dies: lines of JSON in a file that is in memory only (memfd_create(2)),
// which the keeper holds open. A line that a kill cut off is the last.
type journal struct {
	mu   sync.Mutex
	file *os.File
	size int64
	// programs is the last entry of that kind: rules are often made anew, and links hardly ever.
	programs []byte
}

// journalVersion is that of the lines' form. The same executable reads what it
// wrote: see package keeper.
const journalVersion = 1

// entry is a line of the file's. Each has one of the fields.
type entry struct {
	Begun        *begun             `json:"begun,omitempty"`
	Name         *numberedName      `json:"name,omitempty"`
	Programs     []savedPrograms    `json:"programs,omitempty"`
	Hosts        *Resolver          `json:"hosts,omitempty"`
	Placeholders *savedPlaceholders `json:"stand_ins,omitempty"`
	Creator      *creator           `json:"creator,omitempty"`
}

// begun is what does not change once a sandbox's network is complete.
type begun struct {
	Version   int       `json:"version"`
	Request   Request   `json:"request"`
	Started   time.Time `json:"started"` // as sandbox.json has it
	Authority []byte    `json:"authority"`
	Run       learn.Run `json:"run"`
	// Ends is the end of permissive mode, by the clock that only goes forward
	// (CLOCK_MONOTONIC), in nanoseconds. The wall's is in sandbox.json.
	Ends   int64      `json:"ends,omitzero"`
	Native []string   `json:"native,omitempty"` // devices that the kernel made
	Owner  ProcessRef `json:"owner,omitzero"`   // the request's
	Held   []string   `json:"held"`             // what the keeper holds, in order
}

// numberedName is an entry of names.Table.
type numberedName struct {
	Number uint32 `json:"number"`
	Name   string `json:"name"`
}

// savedPrograms are what a container's links lead to: what the workload has made
// of them since is not asked.
type savedPrograms struct {
	Root    string            `json:"root"`
	ID      string            `json:"id"`
	Name    string            `json:"name"`
	Targets map[string]string `json:"targets"`
}

// savedPlaceholders replace those of earlier lines.
type savedPlaceholders struct {
	List []netns.Placeholder `json:"list"`
}

// creator is the process that makes a container.
type creator struct {
	Root    string     `json:"root"`
	ID      string     `json:"id"`
	Process ProcessRef `json:"process"`
}

func newJournal() (*journal, error) {
	fd, err := unix.MemfdCreate("openshell-supervisor", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("journal for a supervisor that takes over: %w", err)
	}
	return &journal{file: os.NewFile(uintptr(fd), "journal")}, nil
}

// add appends an entry. What containers' links lead to is written only where it has changed.
func (j *journal) add(e entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if e.Programs != nil && bytes.Equal(data, j.programs) {
		return nil
	}
	n, err := j.file.WriteAt(append(data, '\n'), j.size)
	if err != nil {
		return errors.Join(fmt.Errorf("journal for a supervisor that takes over: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(n)
	if e.Programs != nil {
		j.programs = data
	}
	return nil
}

// readJournal returns the entries of a file. What a kill cut off is taken away.
func readJournal(file *os.File) (*journal, []entry, error) {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64))
	if err != nil {
		return nil, nil, err
	}
	j := &journal{file: file, size: int64(bytes.LastIndexByte(data, '\n') + 1)}
	var entries []entry
	for text := range bytes.Lines(data[:j.size]) {
		var e entry
		if err := json.Unmarshal(text, &e); err != nil {
			return nil, nil, fmt.Errorf("what the last supervisor knew cannot be read: %w", err)
		}
		entries = append(entries, e)
	}
	return j, entries, file.Truncate(j.size)
}

// monotonic is the time of CLOCK_MONOTONIC, which is the same for all processes.
func monotonic() (int64, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano(), err
}
