// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func statOf(t *testing.T, path string) *unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return &st
}

// sparse makes a file of a size, whose hash nobody has yet.
func sparse(t *testing.T, size int64) (path, sum string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "program")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		t.Fatal(err)
	}
	return path, hex.EncodeToString(digest.Sum(nil))
}

// Whoever asks for a file at a time shares one reading of it, and two large files
// are not read at once.
func TestLargeProgramIsHashedOnce(t *testing.T) {
	const asking = 64
	h := newHashes()
	paths := map[string]string{}
	for range 3 {
		path, sum := sparse(t, largeFile)
		paths[path] = sum
	}
	var readings, atOnce, most atomic.Int64
	begun, goOn := make(chan struct{}, len(paths)), make(chan struct{})
	h.read = func(dst io.Writer, f io.Reader) (int64, error) {
		readings.Add(1)
		most.Store(max(most.Load(), atOnce.Add(1)))
		defer atOnce.Add(-1)
		begun <- struct{}{}
		<-goOn
		return io.Copy(dst, f)
	}
	var wg sync.WaitGroup
	for path, want := range paths {
		st := statOf(t, path)
		for range asking {
			wg.Go(func() {
				if sum, err := h.sum(path, st); err != nil || sum != want {
					t.Errorf("got %q, %v; want %q", sum, err, want)
				}
			})
		}
	}
	<-begun
	close(goOn)
	wg.Wait()
	if readings.Load() != int64(len(paths)) || most.Load() != maxLarge {
		t.Errorf("%d readings of %d files, %d at once", readings.Load(), len(paths), most.Load())
	}
}

func TestFileThatChangesWhileItIsRead(t *testing.T) {
	h := newHashes()
	path, _ := sparse(t, 100)
	st := statOf(t, path)
	h.read = func(dst io.Writer, f io.Reader) (int64, error) {
		if err := os.Truncate(path, 200); err != nil {
			t.Error(err)
		}
		return io.Copy(dst, f)
	}
	if sum, err := h.sum(path, st); err == nil {
		t.Errorf("got %q", sum)
	}
	if len(h.files) != 0 {
		t.Error("it is remembered")
	}
}

// A link to the file that is made or removed, as by the copies of an image, is no
// change of the program.
func TestLinksToAFileThatIsRead(t *testing.T) {
	h := newHashes()
	path, want := sparse(t, 100)
	st := statOf(t, path)
	links := 0
	h.read = func(dst io.Writer, f io.Reader) (int64, error) {
		before := *statOf(t, path)
		for links < 3 && statOf(t, path).Ctim == before.Ctim { // its clock may be coarse
			link := path + "-link"
			_ = os.Remove(link)
			if err := os.Link(path, link); err != nil {
				t.Error(err)
			}
		}
		links++
		return io.Copy(dst, f)
	}
	if sum, err := h.sum(path, st); err != nil || sum != want {
		t.Errorf("got %q, %v; want %q", sum, err, want)
	}
	if links < 2 {
		t.Errorf("read %d times", links)
	}
}
