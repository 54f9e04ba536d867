// SPDX-License-Identifier: Apache-2.0

// Package names owns a sandbox's view of DNS: the server that answers the
// workload, the synthetic addresses it answers with, and the resolver that
// looks names up in the outer namespace when a connection is made. Because
// each name has an address of its own, every connection's name is known before
// its first byte, whatever its protocol. Which names may be asked for is the
// policy's question.
package names

import (
	"encoding/binary"
	"log/slog"
	"net/netip"
	"sync"
)

// Synthetic addresses come from the benchmarking network of RFC 2544 and a
// unique local /64 (RFC 4193): no real destination has one.
var (
	Synthetic4 = netip.MustParsePrefix("198.18.0.0/15")
	Synthetic6 = netip.MustParsePrefix("fd6f:7065:6e73:1::/64")
)

// maxNames bounds the table: names stay for the sandbox's life, because a
// client may keep an address for as long as it likes.
const maxNames = 65536

// Table gives each name an address pair of its own. It is safe for concurrent
// use.
type Table struct {
	mu    sync.RWMutex
	index map[string]uint32
	names []string
	added func(i uint32, name string) error
}

// NewTable returns an empty table. added is told of each new name before anybody
// gets its addresses; where it fails, nobody does. It may be nil.
func NewTable(added func(i uint32, name string) error) *Table {
	return &Table{index: make(map[string]uint32), added: added}
}

// Restore puts back a name that an earlier table had, under the number that added
// was told. Numbers between that were lost stand for no name.
func (t *Table) Restore(i uint32, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= maxNames {
		return
	}
	for uint32(len(t.names)) <= i {
		t.names = append(t.names, "")
	}
	t.names[i], t.index[name] = name, i
}

// Addresses returns the name's synthetic addresses. ok is false where the
// table is full.
func (t *Table) Addresses(name string) (v4, v6 netip.Addr, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, known := t.index[name]
	if !known {
		if len(t.names) >= maxNames {
			return v4, v6, false
		}
		i = uint32(len(t.names))
		if t.added != nil {
			if err := t.added(i, name); err != nil {
				slog.Error("a name has no address", "name", name, "error", err)
				return v4, v6, false
			}
		}
		t.names = append(t.names, name)
		t.index[name] = i
	}
	v4, v6 = synthetic(i)
	return v4, v6, true
}

// Name returns the name that a synthetic address stands for.
func (t *Table) Name(a netip.Addr) (string, bool) {
	i, ok := indexOf(a.Unmap())
	if !ok {
		return "", false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if int(i) >= len(t.names) {
		return "", false
	}
	return t.names[i], t.names[i] != ""
}

// IsSynthetic tells whether a belongs to the ranges that only this table
// hands out.
func IsSynthetic(a netip.Addr) bool {
	a = a.Unmap()
	return Synthetic4.Contains(a) || Synthetic6.Contains(a)
}

// synthetic skips the first address of each range, which is the network's.
func synthetic(i uint32) (v4, v6 netip.Addr) {
	b4 := Synthetic4.Addr().As4()
	binary.BigEndian.PutUint32(b4[:], binary.BigEndian.Uint32(b4[:])+i+1)
	b6 := Synthetic6.Addr().As16()
	binary.BigEndian.PutUint32(b6[12:], i+1)
	return netip.AddrFrom4(b4), netip.AddrFrom16(b6)
}

func indexOf(a netip.Addr) (uint32, bool) {
	switch {
	case Synthetic4.Contains(a):
		b, base := a.As4(), Synthetic4.Addr().As4()
		i := binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
		return i - 1, i > 0
	case Synthetic6.Contains(a):
		b := a.As16()
		i := binary.BigEndian.Uint32(b[12:])
		return i - 1, i > 0 && binary.BigEndian.Uint32(b[8:]) == 0
	}
	return 0, false
}
