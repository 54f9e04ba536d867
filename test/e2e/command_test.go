// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"openshell.ai/openshell/test/cases"
	"openshell.ai/openshell/test/node"
)

func TestTypingErrorsAndOrder(t *testing.T) {
	cases.Show(t, "clients/typos and order")
	t.Parallel()
	w := node.New(t)
	if o := w.OpenShell("aprove", "web", "--all"); o.Status != 1 || !strings.Contains(o.Stderr, `unknown command "aprove": did you mean approve?`) || strings.Count(o.Stderr, "\n") != 1 {
		t.Error(o)
	}
	if out := w.Operate("version"); !strings.HasPrefix(out, "openshell version ") {
		t.Error(out)
	}
	bad := filepath.Join(t.TempDir(), "config.yaml")
	node.Must(t, os.WriteFile(bad, []byte("nonsense: 1\n"), 0o600))
	for _, flag := range [][]string{{"--config", bad}, {"--config=" + bad}} {
		if o := w.OpenShell(append(flag, "ls")...); o.Status == 0 || !strings.Contains(o.Stderr, "nonsense") {
			t.Errorf("%q in front is not heeded: %s", flag, o)
		}
	}
	w.Operate("--config", filepath.Join(w.Dir, "config.yaml"), "ls")
}
