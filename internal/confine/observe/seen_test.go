// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestSeenIsBounded(t *testing.T) {
	s := newSeen()
	for i := range 4 * generation {
		path := fmt.Sprint("/", i)
		if s.add(path, Read) != Read {
			t.Fatalf("%s is known before it came", path)
		}
		if s.add(path, Read) != 0 || s.add(path, Read|Write) != Write || !s.has(path, Read|Write) {
			t.Fatalf("%s is not known right after it came", path)
		}
	}
	if n := len(s.young) + len(s.old); n > 2*generation {
		t.Errorf("%d paths are remembered", n)
	}
}

func TestMade(t *testing.T) {
	m := newMade()
	existing := func(p, want string) {
		t.Helper()
		if got := m.existing(p); got != want {
			t.Errorf("of %s, %s was there before, want %s", p, got, want)
		}
	}
	m.add("/work/a")
	m.add("/work/a/b")
	m.add("/top")
	existing("/work/a/b/c", "/work")
	existing("/work/ab", "/work/ab")
	existing("/top/x", "/")
	if len(m.paths) != 2 {
		t.Errorf("%d paths are kept, want the topmost only", len(m.paths))
	}

	m.remove("/work/a")
	existing("/work/a", "/work") // events from before may still come
	m.turn()
	m.turn()
	existing("/work/a", "/work/a")

	m.remove("/old") // and made again: it will be there in the next run too
	m.add("/old")
	existing("/old", "/old")

	for i := range maxMade + 1 {
		m.add(fmt.Sprint("/many/", i))
	}
	if len(m.paths) > maxMade || !m.full {
		t.Errorf("%d paths are kept, full: %t", len(m.paths), m.full)
	}
}

func TestAlias(t *testing.T) {
	mount := func(root, point string) *mountinfo.Info { return &mountinfo.Info{Root: root, Mountpoint: point} }
	tests := []struct {
		inner, outer *mountinfo.Info
		want         bool
	}{
		{mount("/vol", "/data"), mount("/", "/host"), true},
		{mount("/vol", "/host/vol"), mount("/", "/host"), false}, // such as a read-only remount
		{mount("/vol", "/a"), mount("/vol", "/b"), true},
		{mount("/vol", "/a"), mount("/volume", "/b"), false},
		{mount("/", "/host"), mount("/vol", "/data"), false}, // the other way round
	}
	for _, tt := range tests {
		if got := alias(tt.inner, tt.outer); got != tt.want {
			t.Errorf("%s at %s in %s at %s: %t", tt.inner.Root, tt.inner.Mountpoint, tt.outer.Root, tt.outer.Mountpoint, got)
		}
	}
}

func TestKindsOf(t *testing.T) {
	for mask, want := range map[uint64]string{
		unix.FAN_OPEN: "read", unix.FAN_OPEN | unix.FAN_OPEN_EXEC: "read,execute",
		unix.FAN_MODIFY: "write", unix.FAN_OPEN | unix.FAN_CLOSE_WRITE: "write",
	} {
		if got := kindsOf(mask).String(); got != want {
			t.Errorf("%#x is %s, want %s", mask, got, want)
		}
	}
}
