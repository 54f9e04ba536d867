package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// document is a JSON file that is edited in place: what is not touched keeps
// its meaning, fields this program has never heard of included.
type document struct{ root map[string]any }

// maxSpec bounds a config.json, in bytes. Engines with many mounts write some
// hundred kilobytes.
const maxSpec = 16 << 20

func parseDocument(data []byte) (document, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // resource limits do not fit a float64
	var root map[string]any
	if err := d.Decode(&root); err != nil {
		return document{}, err
	}
	if d.More() || root == nil {
		return document{}, errors.New("not one JSON object")
	}
	return document{root}, nil
}

// set puts a value at a path, making the objects on the way. A nil value, or
// an empty list, removes what is there.
func (d document) set(value any, path ...string) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	generic, err := decodeNumber(data)
	if err != nil {
		return err
	}
	at := d.root
	for _, key := range path[:len(path)-1] {
		next, ok := at[key].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[key] = next
		}
		at = next
	}
	last := path[len(path)-1]
	if list, ok := generic.([]any); generic == nil || ok && len(list) == 0 {
		delete(at, last)
		return nil
	}
	at[last] = generic
	return nil
}

func decodeNumber(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

func (d document) bytes() ([]byte, error) { return json.Marshal(d.root) }

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, err
}

// replaceFile puts new content in a file's place, with the mode and owner of
// the old one, so that no reader sees half of it.
func replaceFile(path string, data []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".openshell-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already where all went well
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = chownLike(tmp, path)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func chownLike(f *os.File, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}
