// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// tail reads a log that package audit writes: lines, in a file that is renamed to the same
// name with .1 when it is full, in place of the one before.
type tail struct {
	path    string
	held    *os.File // which is being read; nil: there is none yet
	partial []byte   // a line whose end has not been read
}

// maxLogLine is more than any line has that package audit writes, in bytes.
const maxLogLine = 1 << 20

// read gives emit the lines that have come since the last time, each without its end.
func (t *tail) read(emit func(line []byte) error) error {
	// Asked first: what is written to the file until it is renamed is read below.
	rotated := t.held == nil || !t.current()
	if t.held != nil {
		if err := t.drain(t.held, emit); err != nil {
			return err
		}
	}
	if !rotated {
		return nil
	}
	return t.advance(emit)
}

// advance goes on to the file that the path names, and reads what came before it and was
// not read yet.
func (t *tail) advance(emit func([]byte) error) error {
	now, err := open(t.path)
	if err != nil || now == nil {
		return err // nothing is logged yet, or it is between the rename and the new file
	}
	before := t.held
	t.held = now
	if before != nil {
		defer before.Close()
		if err := t.endLine(emit); err != nil {
			return err
		}
	}
	// Opened second: a rotation in between makes it the same file, and not one less.
	older, err := open(t.path + ".1")
	if err != nil {
		return err
	}
	if older != nil {
		defer older.Close()
		if !same(older, now) && (before == nil || !same(older, before)) {
			err = errors.Join(t.drain(older, emit), t.endLine(emit))
		}
	}
	if err != nil {
		return err
	}
	return t.drain(now, emit)
}

// drain reads a file to its present end.
func (t *tail) drain(f *os.File, emit func([]byte) error) error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := f.Read(chunk)
		if err := t.split(chunk[:n], emit); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
}

func (t *tail) split(data []byte, emit func([]byte) error) error {
	t.partial = append(t.partial, data...)
	rest := t.partial
	for {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if !found && len(rest) <= maxLogLine {
			break
		}
		if err := emit(line); err != nil {
			return err
		}
		rest = after
	}
	t.partial = append(t.partial[:0], rest...)
	return nil
}

// endLine is for a line that will have no end.
func (t *tail) endLine(emit func([]byte) error) error {
	line := t.partial
	t.partial = nil
	if len(line) == 0 {
		return nil
	}
	return emit(line)
}

// current reports whether the path still names the file held.
func (t *tail) current() bool {
	held, err := t.held.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(t.path)
	return err == nil && os.SameFile(held, now)
}

func (t *tail) close() {
	if t.held != nil {
		t.held.Close()
	}
}

// open opens a file, or returns nil where there is none.
func open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return f, nil
}

func same(a, b *os.File) bool {
	x, errX := a.Stat()
	y, errY := b.Stat()
	return errX == nil && errY == nil && os.SameFile(x, y)
}
