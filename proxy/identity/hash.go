package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// hashes remembers the hash of every executable seen, so that a file is read
// once, and holds each path to the first hash seen for it: a binary that is
// replaced while the sandbox runs loses what its name was granted.
type hashes struct {
	mu    sync.Mutex
	files map[fingerprint]string
	trust map[location]string
}

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

type executable struct{ path, sha256 string }

func newHashes() *hashes {
	return &hashes{files: make(map[fingerprint]string), trust: make(map[location]string)}
}

// maxRemembered bounds both maps; a workload can make any number of
// executables. Past it files are hashed each time and new paths are refused.
const maxRemembered = 16384

func (h *hashes) executable(procRoot string, pid int) (executable, error) {
	dir := procRoot + "/" + strconv.Itoa(pid)
	link := dir + "/exe"
	target, err := os.Readlink(link)
	if err != nil {
		return executable{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	var st, ns unix.Stat_t
	if err := unix.Stat(link, &st); err != nil {
		return executable{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	if err := unix.Stat(dir+"/ns/mnt", &ns); err != nil {
		return executable{}, fmt.Errorf("failed to resolve peer binary: %w", err)
	}
	sum, err := h.sum(link, &st)
	if err != nil {
		return executable{}, fmt.Errorf("failed to hash %s: %w", target, err)
	}
	path := cleanDeleted(target, st.Nlink > 0)
	if err := h.verify(location{ns.Ino, path}, sum); err != nil {
		return executable{}, err
	}
	return executable{path: path, sha256: sum}, nil
}

// sum returns the hash of the file that a link leads to and that st is of.
func (h *hashes) sum(link string, st *unix.Stat_t) (string, error) {
	key := fingerprintOf(st)
	h.mu.Lock()
	sum, ok := h.files[key]
	h.mu.Unlock()
	if ok {
		return sum, nil
	}
	f, err := os.Open(link)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return "", err
	}
	if fingerprintOf(&now) != key {
		return "", errors.New("the process has executed another program meanwhile, or the file has changed")
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		return "", err
	}
	sum = hex.EncodeToString(digest.Sum(nil))
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.files) < maxRemembered {
		h.files[key] = sum
	}
	return sum, nil
}

func fingerprintOf(st *unix.Stat_t) fingerprint {
	return fingerprint{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctim: st.Ctim}
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
