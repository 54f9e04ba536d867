// SPDX-License-Identifier: Apache-2.0

package containerd_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
)

// dial connects to the daemon, for what its command line has no words for.
func (n *node) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n *node) inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", n.namespace)
}

func testTaskAPI(t *testing.T, n *node) {
	id := n.detached(t, runFlags(), "/bin/sleep", "1000")
	ctx, api := n.inNamespace(t.Context()), tasks.NewTasksClient(n.dial(t))

	const limit = int64(64 << 20)
	limits, err := json.Marshal(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: new(limit)}})
	must(t, err)
	_, err = api.Update(ctx, &tasks.UpdateTaskRequest{ContainerID: id, Resources: &anypb.Any{
		TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: limits}})
	must(t, err)
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", n.namespace, id, "memory.limit_in_bytes"))
	if os.IsNotExist(err) { // cgroup v2
		text, err = os.ReadFile(filepath.Join("/sys/fs/cgroup", n.namespace, id, "memory.max"))
	}
	must(t, err)
	if got := strings.TrimSpace(string(text)); got != strconv.FormatInt(limit, 10) {
		t.Errorf("memory limit %s after an update to %d", got, limit)
	}

	pids, err := api.ListPids(ctx, &tasks.ListPidsRequest{ContainerID: id})
	must(t, err)
	if len(pids.Processes) != 1 {
		t.Errorf("processes: %v", pids.Processes)
	}
	stats, err := api.Metrics(ctx, &tasks.MetricsRequest{Filters: []string{"id==" + id}})
	must(t, err)
	if len(stats.Metrics) != 1 || len(stats.Metrics[0].GetData().GetValue()) == 0 {
		t.Errorf("metrics: %v", stats)
	}

	ended := make(chan *tasks.WaitResponse, 1)
	go func() {
		r, _ := api.Wait(ctx, &tasks.WaitRequest{ContainerID: id})
		ended <- r
	}()
	_, err = api.Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: 9, All: true})
	must(t, err)
	if r := <-ended; r.GetExitStatus() != 137 || r.GetExitedAt() == nil {
		t.Errorf("wait: %v", r)
	}
	deleted, err := api.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	must(t, err)
	if deleted.ExitStatus != 137 {
		t.Errorf("delete: %v", deleted)
	}
}
