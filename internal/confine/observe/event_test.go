// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// record is an information record as the kernel writes it.
func record(kind byte, fsid, h, name string) []byte {
	b := []byte{kind, 0, 0, 0}
	b = append(b, fsid...)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(h)))
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = append(b, h...)
	if kind != infoFID {
		b = append(b, name...)
		b = append(b, 0)
	}
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func rawEvent(mask uint64, fd, pid int32, records ...[]byte) []byte {
	b := make([]byte, metadataSize)
	for _, r := range records {
		b = append(b, r...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], metadataSize)
	binary.NativeEndian.PutUint64(b[8:], mask)
	binary.NativeEndian.PutUint32(b[16:], uint32(fd))
	binary.NativeEndian.PutUint32(b[20:], uint32(pid))
	return b
}

func TestParseEvent(t *testing.T) {
	const fsid = "12345678"
	b := rawEvent(unix.FAN_RENAME, -1, 7, record(infoOldName, fsid, "olddir", "a\nb"), record(infoNewName, fsid, "newdir", "\xff"), record(infoFID, fsid, "child", ""))
	b = append(b, rawEvent(unix.FAN_OPEN, 5, 8)...)
	first, rest, err := parseEvent(b)
	if err != nil {
		t.Fatal(err)
	}
	if first.pid != 7 || first.fd != -1 || first.from.name != "a\nb" || first.to.name != "\xff" ||
		first.child.fsid() != fsid || string(first.from.dir) != fsid+"\x01\x00\x00\x00olddir" {
		t.Errorf("got %+v", first)
	}
	if h := first.to.dir.file(); h.Type() != 1 || string(h.Bytes()) != "newdir" {
		t.Errorf("handle of type %d: %q", h.Type(), h.Bytes())
	}
	second, rest, err := parseEvent(rest)
	if err != nil || second.fd != 5 || second.pid != 8 || len(rest) != 0 {
		t.Errorf("got %+v, %d bytes and %v", second, len(rest), err)
	}
	for n := range len(b) - metadataSize {
		if _, rest, err := parseEvent(b[:n]); err == nil && len(rest) == 0 && n < 60 {
			t.Errorf("%d bytes of an event are taken for one", n)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(rawEvent(unix.FAN_CREATE, -1, 1, record(infoDFName, "12345678", "dir", "name"), record(infoFID, "12345678", "file", "")))
	f.Add(rawEvent(unix.FAN_OPEN, 3, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			e, next, err := parseEvent(rest)
			if err != nil {
				return
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			for _, h := range []handle{e.from.dir, e.to.dir, e.child} {
				if h != "" && h.fsid() != "" {
					h.file()
				}
			}
			rest = next
		}
	})
}
