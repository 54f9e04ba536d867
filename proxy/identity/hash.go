// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/singleflight"
	"golang.org/x/sys/unix"
)

// hashes remembers the hash of every executable seen, so that a file is read
// once, and holds each path to the first hash seen for it: a binary that is
// replaced while the sandbox runs loses what its name was granted. Connections
// that wait for the hash of one file share it, and few large files are read at a
// time, whatever the number of connections.
type hashes struct {
	flight singleflight.Group
	large  chan struct{} // one for each large file that is being read
	read   func(dst io.Writer, f io.Reader) (int64, error)

	mu    sync.Mutex
	files map[fingerprint]string
	trust map[location]string
	seen  map[sighting]uint64 // see name.go
}

const (
	// largeFile is the size, in bytes, from which a file waits for its turn. Smaller
	// ones are read before that would matter.
	largeFile = 8 << 20
	// maxLarge leaves a processor to others on all machines but those with one.
	maxLarge = 1
)

// fingerprint changes whenever a file's content may have.
type fingerprint struct {
	dev, ino    uint64
	size        int64
	mtime, ctim unix.Timespec
}

// location is a path in one container: containers of a pod have the same
// paths for different files.
type location struct {
	mountNamespace uint64
	path           string
}

func newHashes() *hashes {
	return &hashes{large: make(chan struct{}, maxLarge), read: io.Copy,
		files: make(map[fingerprint]string), trust: make(map[location]string), seen: make(map[sighting]uint64)}
}

// maxRemembered bounds each map; a workload can make any number of
// executables. Past it files are hashed each time and new paths are refused.
const maxRemembered = 16384

// sum returns the hash of the file that a link leads to and that st is of.
func (h *hashes) sum(link string, st *unix.Stat_t) (string, error) {
	key := fingerprintOf(st)
	if sum, ok := h.known(key); ok {
		return sum, nil
	}
	// Opened by everybody who asks: the link may be one's own that another's has
	// stopped being, and the file outlives the process that leads to it.
	f, err := os.Open(link)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return h.sumOf(f, key)
}

// sumOf is sum for an open file.
func (h *hashes) sumOf(f *os.File, key fingerprint) (string, error) {
	for range maxReadings {
		now, err := fingerprintOfOpen(f)
		if err != nil {
			return "", err
		}
		if !now.sameContent(key) {
			return "", errChanged
		}
		sum, err, _ := h.flight.Do(now.String(), func() (any, error) { return h.hash(f, now) })
		if !errors.Is(err, errChanged) {
			text, _ := sum.(string)
			return text, err
		}
	}
	return "", errChanged
}

// maxReadings is how often a file is read whose inode changes meanwhile: images
// share files by links, and each that is made or removed changes their ctime.
const maxReadings = 16

var errChanged = errors.New("the process has executed another program meanwhile, or the file has changed")

func (h *hashes) known(key fingerprint) (sum string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sum, ok = h.files[key]
	return sum, ok
}

// hash reads a file, and remembers its hash.
func (h *hashes) hash(f *os.File, key fingerprint) (string, error) {
	if sum, ok := h.known(key); ok {
		return sum, nil
	}
	if key.size >= largeFile {
		h.large <- struct{}{}
		defer func() { <-h.large }()
	}
	digest := sha256.New()
	// No more than there was: what grows meanwhile would never end.
	if _, err := h.read(digest, io.NewSectionReader(f, 0, key.size+1)); err != nil {
		return "", err
	}
	if now, err := fingerprintOfOpen(f); err != nil || now != key {
		return "", cmp.Or(err, errChanged)
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.files) < maxRemembered {
		h.files[key] = sum
	}
	return sum, nil
}

// sameContent reports whether two fingerprints of a file differ at most by what can
// change without its content: whether it can have, a ctime alone does not tell.
func (f fingerprint) sameContent(other fingerprint) bool {
	f.ctim, other.ctim = unix.Timespec{}, unix.Timespec{}
	return f == other
}

func fingerprintOfOpen(f *os.File) (fingerprint, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(&st), nil
}

// String tells files apart.
func (f fingerprint) String() string {
	return fmt.Sprint(f.dev, f.ino, f.size, f.mtime, f.ctim)
}

func fingerprintOf(st *unix.Stat_t) fingerprint {
	return fingerprint{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctim: st.Ctim}
}

// trusted reports whether the file with the hash was the path's.
func (h *hashes) trusted(l location, sum string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, ok := h.trust[l]
	return ok && first == sum
}

// sighted returns what was given to sight.
func (h *hashes) sighted(s sighting) (in uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	in, ok = h.seen[s]
	return in, ok
}

// sight remembers a file that was found at its path, and in which mount namespace.
func (h *hashes) sight(s sighting, in uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) < maxRemembered {
		h.seen[s] = in
	}
}

func (h *hashes) verify(l location, sum string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	first, ok := h.trust[l]
	switch {
	case !ok && len(h.trust) >= maxRemembered:
		return fmt.Errorf("binary integrity check failed: more than %d binaries seen", maxRemembered)
	case !ok:
		h.trust[l] = sum
	case first != sum:
		return fmt.Errorf("binary integrity check failed: Binary integrity violation: %s hash changed (cached: %s, current: %s)", l.path, first, sum)
	}
	return nil
}
