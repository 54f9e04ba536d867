// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cost is what work took: by the clock, and of all processors' time.
type cost struct{ wall, cpu, own time.Duration }

func (c *cost) add(o cost) { c.wall, c.cpu, c.own = c.wall+o.wall, c.cpu+o.cpu, c.own+o.own }

func measure(c *container, script string) cost {
	own, start := ownCPU(c.t), time.Now()
	cpu := c.run(script)
	return cost{time.Since(start), cpu, ownCPU(c.t) - own}
}

// ownCPU is the processor time that the observer's process took.
func ownCPU(t testing.TB) time.Duration {
	var u syscall.Rusage
	must(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkOverhead compares a workload with and without its files observed, by
// turns in one run.
func BenchmarkOverhead(b *testing.B) {
	var sources strings.Builder
	for i := range 12 {
		fmt.Fprintf(&sources, "printf '#include <stdio.h>\\n#include <stdlib.h>\\n#include <string.h>\\n#include <unistd.h>\\n"+
			"#include <sys/socket.h>\\n#include <netinet/in.h>\\nint f%d(void){return printf(\"x\");}\\n' > /tmp/%d.c\n", i, i)
	}
	for name, scripts := range map[string][2]string{
		"compile": {sources.String(), "for i in 0 1 2 3 4 5 6 7 8 9 10 11; do gcc -O1 -c -o /tmp/$i.o /tmp/$i.c; done"},
		"opens":   {"mkdir /tmp/f; for i in $(seq 2000); do echo $i > /tmp/f/$i; done", "for i in 1 2 3 4 5; do cat /tmp/f/* > /dev/null; done"},
		"cold":    {"true", "find /usr/include /usr/lib/gcc -type f -exec cat {} + > /dev/null"},
		"create":  {"true", "mkdir /tmp/c; for i in $(seq 3000); do echo $i > /tmp/c/$i; done; rm -r /tmp/c"},
		"devices": {"true", "for i in $(seq 20000); do echo $i > /dev/null; done"},
	} {
		b.Run(name, func(b *testing.B) {
			c := newHostContainer(b)
			c.run(scripts[0])
			c.run(scripts[1])
			var plain, observed cost
			events, lost := 0, ""
			for b.Loop() {
				plain.add(measure(c, scripts[1]))
				o, err := Watch(c.cmd.Process.Pid, Options{
					Report: func(Access) { events++ },
					Lost:   func(reason string) { lost = reason },
				})
				must(b, err)
				observed.add(measure(c, scripts[1]))
				o.Stop()
			}
			if lost != "" {
				b.Errorf("lost: %s", lost)
			}
			b.ReportMetric(float64(observed.wall)/float64(plain.wall), "wall-ratio")
			b.ReportMetric(float64(observed.cpu+observed.own)/float64(plain.cpu), "cpu-ratio")
			b.ReportMetric(float64(observed.own)/float64(observed.cpu), "own")
			b.ReportMetric(float64(plain.cpu.Milliseconds())/float64(b.N), "plain-ms/op")
			b.ReportMetric(float64(events)/float64(b.N), "accesses/op")
		})
	}
}
