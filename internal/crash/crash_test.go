// SPDX-License-Identifier: Apache-2.0

package crash

import (
	"bytes"
	"log/slog"
	"runtime"
	"strings"
	"testing"
)

func TestContain(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var log bytes.Buffer
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))

	if !Contain("fine", func() {}) || log.Len() > 0 {
		t.Errorf("no panic: %s", log.String())
	}
	var nothing map[string]int
	if Contain("a connection", func() { nothing["x"] = 1 }) {
		t.Error("it returned")
	}
	for _, want := range []string{"level=ERROR", "a connection", "assignment to entry in nil map", "crash_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is missing in %s", want, log.String())
		}
	}
	log.Reset()
	done := make(chan struct{})
	go func() {
		defer close(done)
		Contain("goexit", runtime.Goexit)
	}()
	if <-done; log.Len() > 0 {
		t.Errorf("the end of a goroutine: %s", log.String())
	}
}
