// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const stockRuntime = "io.containerd.runc.v2"

// What the sandbox costs beside runc's own shim. The figures are for the reader:
// what else the machine does at the time moves them.
func TestCost(t *testing.T) {
	n := newNode(t, pair{"2.4.2", "1.5.2"})
	const rounds = 10
	var ours, stock []time.Duration
	for range rounds { // in turns, so that both see the same machine
		ours = append(ours, n.timeTrue(t, runtimeName))
		stock = append(stock, n.timeTrue(t, stockRuntime))
	}
	report("ctr run --rm of true: median %s with openshell, %s with runc's shim: %.2f times",
		median(ours).Round(time.Millisecond), median(stock).Round(time.Millisecond), float64(median(ours))/float64(median(stock)))

	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	n.detached(t, []string{"--runtime", stockRuntime}, "/bin/sleep", "1000")
	n.exec(t, id, "/bin/true")
	time.Sleep(2 * time.Second) // idle
	a, b := n.memory(t, "containerd-shim-openshell-v1"), n.memory(t, "containerd-shim-runc-v2")
	report("shim with an idle sandbox: Rss %d KiB, Pss %d KiB; runc's: Rss %d KiB, Pss %d KiB: %.2f and %.2f times",
		a.rss, a.pss, b.rss, b.pss, float64(a.rss)/float64(b.rss), float64(a.pss)/float64(b.pss))
}

// figures are printed when all tests have ended: what a test that passes logs is
// not shown.
var figures []string

func report(format string, args ...any) { figures = append(figures, fmt.Sprintf(format, args...)) }

func (n *node) timeTrue(t *testing.T, runtime string) time.Duration {
	t.Helper()
	cmd := n.ctr(runArgs([]string{"--rm", "--runtime", runtime}, n.name("true"), []string{"/bin/true"})...)
	start := time.Now()
	n.mustRun(t, cmd)
	return time.Since(start)
}

func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return (list[len(list)/2] + list[(len(list)-1)/2]) / 2
}

// usage is a process's memory, in KiB.
type usage struct{ rss, pss int }

// memory reads what the one process of a program uses (proc_pid_smaps(5)).
func (n *node) memory(t *testing.T, program string) usage {
	t.Helper()
	for _, file := range glob(t, n.Path("proc/[0-9]*/cmdline")) {
		text, err := os.ReadFile(file)
		if err != nil || filepath.Base(strings.SplitN(string(text), "\x00", 2)[0]) != program {
			continue
		}
		f, err := os.Open(filepath.Join(filepath.Dir(file), "smaps_rollup"))
		must(t, err)
		defer f.Close()
		var u usage
		for lines := bufio.NewScanner(f); lines.Scan(); {
			_, _ = fmt.Sscanf(lines.Text(), "Rss: %d kB", &u.rss)
			_, _ = fmt.Sscanf(lines.Text(), "Pss: %d kB", &u.pss)
		}
		if u.rss > 0 {
			return u
		}
	}
	t.Fatalf("%s does not run", program)
	panic("unreachable")
}
