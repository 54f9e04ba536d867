// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// file is an append-only file of lines that is rotated, to the same name with .1, before it
// outgrows its limit. It is opened at the first write.
type file struct {
	path  string
	limit int64

	f    *os.File
	size int64
	buf  []byte // whole lines, not written yet
}

// writeSize is how much is gathered for one write(2).
const writeSize = 64 << 10

// append takes a whole line, with its newline.
func (f *file) append(line []byte) error {
	f.buf = append(f.buf, line...)
	if len(f.buf) < writeSize {
		return nil
	}
	return f.flush()
}

// flush writes what was appended. On failure that is dropped.
func (f *file) flush() error {
	data := f.buf
	if len(data) == 0 {
		return nil
	}
	f.buf = f.buf[:0]
	if err := f.ready(int64(len(data))); err != nil {
		return err
	}
	n, err := f.f.Write(data)
	f.size += int64(n)
	if err != nil {
		// The next opening ends the line that was cut short.
		return errors.Join(err, f.close())
	}
	return nil
}

// ready makes f.f the file that path names, with room for n more bytes. It looks each
// time because the file may have been rotated or pruned from outside.
func (f *file) ready(n int64) error {
	if f.f != nil && !f.current() {
		if err := f.close(); err != nil {
			return err
		}
	}
	if f.f == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if f.size == 0 || f.size+n <= f.limit {
		return nil
	}
	if err := f.close(); err != nil {
		return err
	}
	if err := os.Rename(f.path, f.path+".1"); err != nil {
		return err
	}
	return f.open()
}

func (f *file) current() bool {
	held, err := f.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(f.path)
	return err == nil && os.SameFile(held, named)
}

func (f *file) open() error {
	opened, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := opened.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.path, Err: errors.New("not a regular file")}
	}
	if err == nil {
		f.f, f.size = opened, info.Size()
		err = f.endLine()
	}
	if err != nil {
		opened.Close()
		f.f = nil
	}
	return err
}

// endLine ends a line that a killed writer, or a full disk, left without its end.
func (f *file) endLine() error {
	if f.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := f.f.ReadAt(last[:], f.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := f.f.Write([]byte{'\n'})
	f.size += int64(n)
	return err
}

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	err := errors.Join(f.f.Sync(), f.f.Close())
	f.f = nil
	return err
}
