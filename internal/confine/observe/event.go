// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// event is one event as fanotify(7) has it: with a descriptor, or with the
// directory entries that it is about.
type event struct {
	mask     uint64
	fd       int // -1: none; the receiver's to close
	pid      int
	from, to entry // to: only of a rename
	child    handle
}

// entry is a name in a directory.
type entry struct {
	dir  handle
	name string
}

// handle names a file system object across all mounts: its file system's id, its
// type, and its bytes, as in open_by_handle_at(2).
type handle string

const fsidSize = 8

func (h handle) fsid() string {
	if len(h) < fsidSize+4 {
		return "" // the event had none
	}
	return string(h[:fsidSize])
}

func (h handle) file() unix.FileHandle {
	return unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(h[fsidSize:]))), []byte(h[fsidSize+4:]))
}

// handleOf returns the handle of what a descriptor refers to, as events have it.
func handleOf(fd int) (handle, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", os.NewSyscallError("fstatfs", err)
	}
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return "", os.NewSyscallError("name_to_handle_at", err)
	}
	b := binary.NativeEndian.AppendUint32([]byte(fsidOf(&fs)), uint32(h.Type()))
	return handle(append(b, h.Bytes()...)), nil
}

// fsidOf returns a file system's id as events have it.
func fsidOf(fs *unix.Statfs_t) string {
	var b []byte
	for _, v := range fs.Fsid.Val {
		b = binary.NativeEndian.AppendUint32(b, uint32(v))
	}
	return string(b)
}

// Types of information records (linux/fanotify.h) that are looked at.
const (
	infoFID     = 1
	infoDFID    = 3
	infoDFName  = 2
	infoOldName = 10
	infoNewName = 12
)

const (
	metadataSize   = 24
	infoHeaderSize = 4
)

var errEvent = errors.New("the kernel's event is not understood")

// parseEvent splits the first event off a buffer.
func parseEvent(b []byte) (e event, rest []byte, err error) {
	if len(b) < metadataSize {
		return e, nil, errEvent
	}
	length := binary.NativeEndian.Uint32(b)
	header := int(binary.NativeEndian.Uint16(b[6:]))
	if b[4] != unix.FANOTIFY_METADATA_VERSION || header < metadataSize ||
		uint64(length) > uint64(len(b)) || int(length) < header {
		return e, nil, errEvent
	}
	e.mask = binary.NativeEndian.Uint64(b[8:])
	e.fd = int(int32(binary.NativeEndian.Uint32(b[16:])))
	e.pid = int(int32(binary.NativeEndian.Uint32(b[20:])))
	for info := b[header:length]; len(info) > 0; {
		if len(info) < infoHeaderSize {
			return e, nil, errEvent
		}
		size := int(binary.NativeEndian.Uint16(info[2:]))
		if size < infoHeaderSize || size > len(info) {
			return e, nil, errEvent
		}
		if err := e.parseInfo(info[0], info[infoHeaderSize:size]); err != nil {
			return e, nil, err
		}
		info = info[size:]
	}
	return e, b[length:], nil
}

// parseInfo reads what follows a record's header: a file system id, a file handle
// and, of a directory's, a name.
func (e *event) parseInfo(kind byte, b []byte) error {
	var to *entry
	switch kind {
	case infoFID, infoDFID:
	case infoDFName, infoOldName:
		to = &e.from
	case infoNewName:
		to = &e.to
	default:
		return nil
	}
	if len(b) < fsidSize+8 {
		return errEvent
	}
	size := binary.NativeEndian.Uint32(b[fsidSize:])
	data := b[fsidSize+8:]
	if uint64(size) > uint64(len(data)) {
		return errEvent
	}
	h := handle(string(b[:fsidSize]) + string(b[fsidSize+4:fsidSize+8]) + string(data[:size]))
	if to == nil {
		if kind == infoFID {
			e.child = h
		}
		return nil
	}
	name, _, terminated := bytes.Cut(data[size:], []byte{0})
	if !terminated {
		return errEvent
	}
	to.dir, to.name = h, string(name)
	return nil
}
