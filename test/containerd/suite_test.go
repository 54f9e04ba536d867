// SPDX-License-Identifier: Apache-2.0

package containerd_test

import "testing"

// suite is what holds on every node, in this order.
var suite = []struct {
	name string
	run  func(*testing.T, *node)
}{
	{"Lifecycle", testLifecycle},
	{"ExitStatus", testExitStatus},
	{"Exec", testExec},
	{"Terminal", testTerminal},
	{"Attach", testAttach},
	{"Input", testInput},
	{"TaskAPI", testTaskAPI},
	{"Events", testEvents},
	{"OutOfMemory", testOutOfMemory},
	{"Checkpoint", testCheckpoint},
	{"ExecIsConfinedLikeTheFirstProcess", testConfinement},
	{"Discovery", testDiscovery},
	{"BadInput", testBadInput},
	{"RuntimeOptions", testRuntimeOptions},
	{"KilledShim", testKilledShim},
	{"DaemonRestart", testDaemonRestart},
	{"Pod", testPod},
	{"PodImages", testPodImages},
	{"PodInput", testPodInput},
	{"KilledPodShim", testKilledPodShim},
	{"PodDaemonRestart", testPodDaemonRestart},
}

func TestContainerd(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			n := newNode(t, p)
			for _, c := range suite {
				t.Run(c.name, func(t *testing.T) {
					n.net.Reset()
					before := n.snap(t)
					// After what the test itself cleans up.
					t.Cleanup(func() { n.nothingLeft(t, before) })
					c.run(t, n)
				})
			}
		})
	}
}
