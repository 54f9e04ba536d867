// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// lineReader reads lines of bounded length.
type lineReader struct {
	r     *bufio.Reader
	limit int // in bytes, without the line's end
	line  []byte
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

var errLineTooLong = errors.New("the line is too long")

// next returns the next line without its end, valid until the next call, and io.EOF after
// the last. A line over the limit is skipped, which is errLineTooLong.
func (l *lineReader) next() ([]byte, error) {
	l.line = l.line[:0]
	tooLong, some := false, false
	for {
		part, err := l.r.ReadSlice('\n')
		some = some || len(part) > 0
		if err == nil {
			part = part[:len(part)-1]
		}
		if tooLong = tooLong || len(l.line)+len(part) > l.limit; !tooLong {
			l.line = append(l.line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || !some):
			return nil, err
		case tooLong:
			return nil, errLineTooLong
		}
		return l.line, nil
	}
}

// buffered reports whether the next line can be had without waiting for it.
func (l *lineReader) buffered() bool {
	waiting, err := l.r.Peek(l.r.Buffered())
	return err == nil && bytes.IndexByte(waiting, '\n') >= 0
}
