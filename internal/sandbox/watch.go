// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"openshell.ai/openshell/internal/policystore"
)

const (
	// settle is how long files are left alone that change: editors and mounted
	// ConfigMaps change several at a time.
	settle = 100 * time.Millisecond
	// pollEvery is how soon a change is noticed of which the kernel tells
	// nothing, such as on a network file system.
	pollEvery = 30 * time.Second
	// maxLinks bounds how many symbolic links are followed (path_resolution(7)).
	maxLinks = 40
)

// watchPolicies reloads the policy when one of its files changes, however that
// is done: in place, by a rename, by a symbolic link that leads elsewhere, in a
// directory that did not exist before.
func (s *Sandbox) watchPolicies() {
	files := policystore.Files(s.config, s.request.Policy)
	w, err := newDirWatch()
	if err != nil {
		// The node has more sandboxes than inotify(7) instances.
		s.recordError("changes of the policy's files are noticed late: fs.inotify.max_user_instances may be too low", err)
	}
	defer w.close()
	w.follow(files)
	s.reloadIfChanged() // what happened before
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-w.changed():
			if settled == nil { // a file that never rests is read all the same
				settled = time.After(settle)
			}
			continue
		case <-settled:
			settled = nil
		case <-poll.C:
		}
		w.follow(files)
		s.reloadIfChanged()
	}
}

// dirWatch watches the directories by which paths are resolved. The nil one
// watches nothing.
type dirWatch struct {
	notify *fsnotify.Watcher
	dirs   map[string]fileMark
	signal chan struct{} // something changed, or may have
	done   sync.WaitGroup
}

func newDirWatch() (*dirWatch, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	w := &dirWatch{notify: notify, dirs: map[string]fileMark{}, signal: make(chan struct{}, 1)}
	w.done.Go(w.drain)
	return w, nil
}

// drain takes events while follow waits for the watcher, which waits for
// somebody to take its events.
func (w *dirWatch) drain() {
	for events, errs := w.notify.Events, w.notify.Errors; events != nil || errs != nil; {
		select {
		case _, open := <-events:
			if !open {
				events = nil
			}
		case _, open := <-errs: // events were lost, or a directory was
			if !open {
				errs = nil
			}
		}
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}

func (w *dirWatch) changed() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.signal
}

func (w *dirWatch) close() {
	if w != nil {
		w.notify.Close()
		w.done.Wait()
	}
}

// follow watches what the paths are resolved by now. What is not watched because
// of an error is polled like everything else.
func (w *dirWatch) follow(paths []string) {
	if w == nil {
		return
	}
	for range 3 { // the directories may change before they are watched
		want := map[string]fileMark{}
		for _, path := range paths {
			for _, dir := range resolvedBy(path) {
				want[dir] = markDir(dir)
			}
		}
		if maps.Equal(want, w.dirs) {
			return
		}
		for dir, mark := range w.dirs {
			if want[dir] != mark { // another directory has the name by now, or none
				_ = w.notify.Remove(dir)
				delete(w.dirs, dir)
			}
		}
		for dir, mark := range want {
			if _, watched := w.dirs[dir]; !watched && w.notify.Add(dir) == nil {
				w.dirs[dir] = mark
			}
		}
	}
}

// resolvedBy returns the directories of which an entry decides what an absolute
// path leads to: those of its file and of each symbolic link on the way, or the
// one where an entry is missing.
func resolvedBy(path string) (dirs []string) {
	rest := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	dir := "/"
	for links := 0; len(rest) > 0; {
		next := filepath.Join(dir, rest[0])
		info, err := os.Lstat(next)
		if err != nil || len(rest) == 1 {
			dirs = append(dirs, dir)
		}
		switch {
		case err != nil:
			return dirs
		case info.Mode()&os.ModeSymlink == 0:
			dir, rest = next, rest[1:]
			continue
		}
		dirs = append(dirs, dir)
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return dirs
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		rest = append(strings.Split(strings.Trim(filepath.Clean(target), "/"), "/"), rest[1:]...)
		dir = "/"
	}
	return dirs
}

// fileMark tells a file's content from another one. The zero value is that of a
// file that cannot be read.
type fileMark struct {
	dev, ino       uint64
	size           int64
	modified, meta syscall.Timespec // st_mtim, st_ctim
}

// markFiles returns the marks of what paths lead to.
func markFiles(paths []string) []fileMark {
	marks := make([]fileMark, len(paths))
	for i, path := range paths {
		marks[i] = markFile(path)
	}
	return marks
}

func markFile(path string) fileMark {
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}
	}
	st := info.Sys().(*syscall.Stat_t)
	return fileMark{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// markDir returns what identifies a directory, whatever happens in it.
func markDir(path string) fileMark {
	mark := markFile(path)
	return fileMark{dev: mark.dev, ino: mark.ino}
}
