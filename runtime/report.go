// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"openshell.ai/openshell/internal/usertext"
)

// Report tells of a failure where callers look: on standard error, and in the
// file of --log as runc writes it (logrus, text or JSON).
func Report(inv Invocation, err error) {
	text := usertext.OneLine(err)
	fmt.Fprintln(os.Stderr, "openshell: "+text)
	if inv.Log == "" {
		return
	}
	f, ferr := os.OpenFile(inv.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if ferr != nil {
		fmt.Fprintf(os.Stderr, "openshell: write --log: %v\n", ferr)
		return
	}
	defer f.Close()
	fmt.Fprintln(f, logLine(inv.LogFormat, text, time.Now()))
}

func logLine(format, text string, now time.Time) string {
	stamp := now.Format(time.RFC3339)
	if format != "json" {
		return fmt.Sprintf("time=%q level=error msg=%q", stamp, text)
	}
	line, err := json.Marshal(struct {
		Level   string `json:"level"`
		Message string `json:"msg"`
		Time    string `json:"time"`
	}{"error", text, stamp})
	if err != nil { // strings always marshal
		panic(err)
	}
	return string(line)
}
