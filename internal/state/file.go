// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"openshell.ai/openshell/internal/fileio"
	"openshell.ai/openshell/internal/safefile"
)

// MaxFileSize is the most that ReadFile and ReadJSON read, in bytes.
const MaxFileSize = 8 << 20

// WriteFile replaces path with data. When it returns nil the new content has reached
// the disk; a reader, or a crash at any instant, sees the old content or the new,
// never a part. Missing directories are created with mode 0700.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	if err := fileio.MkdirAll(filepath.Dir(path)); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return fileio.Write(path, data, mode)
}

// ReadFile reads a regular file of at most MaxFileSize bytes that only root can change. It does not follow a
// symbolic link, since nothing here writes one.
func ReadFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := safefile.Check(f); err != nil {
		return nil, fmt.Errorf("reading %w", err)
	}
	data, err := fileio.ReadAll(f, MaxFileSize)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

// WriteJSON writes v as one indented JSON document, as WriteFile does, with mode 0600. What ReadJSON would
// not read is fileio.ErrTooLarge.
func WriteJSON(path string, v any) error {
	data, err := encodeJSON(path, v)
	if err != nil {
		return err
	}
	return WriteFile(path, data, 0o600)
}

func encodeJSON(path string, v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	if buf.Len() > MaxFileSize {
		return nil, fmt.Errorf("writing %s: %w", path, fileio.TooLarge(MaxFileSize))
	}
	return buf.Bytes(), nil
}

// ReadJSON reads into v the one JSON document that a file holds. A field that is not
// known is passed over, and lost when the document is written again: within the
// version that a document names, newer programs add only what older ones, which run
// beside them, can do without. The error for a missing file is fs.ErrNotExist.
func ReadJSON(path string, v any) error {
	data, err := ReadFile(path)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s: text after the JSON document", path)
	}
	return nil
}

// CheckVersion reports why a program that knows one version of a format cannot use a document of another.
// Versions end in "/v" and a number; what comes after it, as in "/v1.2", may be passed over.
func CheckVersion(version, known string) error {
	format, number := splitVersion(version)
	knownFormat, knownNumber := splitVersion(known)
	switch {
	case format != knownFormat || number == 0 || number < knownNumber:
		return fmt.Errorf("version %.140q: must be %q", version, known)
	case number > knownNumber:
		return fmt.Errorf("version %.140q: a newer openshell wrote it: use that one; this one knows %q", version, known)
	}
	return nil
}

// splitVersion returns the format's name and its major version, 0 where there is none.
func splitVersion(version string) (format string, major int) {
	i := strings.LastIndex(version, "/v")
	if i < 0 {
		return version, 0
	}
	text, _, _ := strings.Cut(version[i+2:], ".")
	major, err := strconv.Atoi(text)
	if err != nil || major < 0 {
		return version, 0
	}
	return version[:i], major
}
