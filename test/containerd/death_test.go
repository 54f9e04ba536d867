// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
)

// A loop of requests that tells when egress is closed.
var knocking = []string{"/bin/sh", "-c", "while :; do client get -t 2s https://" + fakenet.WeatherHost + "/knock; sleep 0.1; done"}

func (n *node) awaitKnock(t *testing.T) {
	t.Helper()
	n.net.Reset()
	eventually(t, "a request gets through", func() bool { return len(n.net.Saw(fakenet.WeatherHost)) > 0 })
}

func testKilledShim(t *testing.T, n *node) {
	id := n.detached(t, runFlags("permissive=true"), knocking...)
	n.awaitKnock(t)
	info := n.sandboxOf(t, id)
	n.killShim(t, info.Supervisor.PID)
	eventually(t, "containerd takes the task away", func() bool {
		status := n.status(t, id)
		return status == "" || status == "STOPPED" || status == "UNKNOWN"
	})
	eventually(t, "the workload ends", func() bool {
		_, err := os.Stat(n.Path("proc", strconv.Itoa(info.Containers[0].PID)))
		return os.IsNotExist(err)
	})
	eventually(t, "the sandbox is cleared away", func() bool { return len(glob(t, filepath.Join(n.runDir, "sandboxes/*"))) == 0 })
	n.net.Reset()
	n.run(t, n.ctr("task", "delete", "--force", id))
	// The same container again.
	n.mustCtr(t, "task", "start", "--detach", id)
	n.awaitKnock(t)
}

func testDaemonRestart(t *testing.T, n *node) {
	id := n.detached(t, runFlags("permissive=true"), knocking...)
	n.awaitKnock(t)
	before := n.sandboxOf(t, id)
	n.stopDaemon(t)
	n.awaitKnock(t) // the sandbox lives on without it
	n.startDaemon(t)
	n.awaitStatus(t, id, "RUNNING")
	worked(t, n.client(t, id, "get", wanted))
	n.awaitKnock(t)
	if after := n.sandboxOf(t, id); after.Supervisor != before.Supervisor {
		t.Errorf("the sandbox is another shim's: %+v, was %+v", after.Supervisor, before.Supervisor)
	}
	n.mustCtr(t, "task", "kill", "--signal", "KILL", id)
	n.awaitStatus(t, id, "STOPPED")
	n.deletedWith(t, id, 137)
}

// testCheckpoint compares with runc's own shim.
func testCheckpoint(t *testing.T, n *node) {
	if o := n.run(t, n.on("criu", "check")); o.Status != 0 {
		t.Skipf("this kernel has no vDSO, or else, that criu understands: %s", firstLine(o.Stderr))
	}
	for _, runtime := range []string{stockRuntime, runtimeName} {
		id := n.detached(t, []string{"--runtime", runtime}, "/bin/sleep", "1000")
		image := filepath.Join(n.dir, id+"-image")
		n.mustCtr(t, "task", "checkpoint", "--exit", "--image-path", image, "--work-path", n.dir, id)
		n.awaitStatus(t, id, "STOPPED")
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
