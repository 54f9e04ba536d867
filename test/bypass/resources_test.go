// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// seen lets the workload do a little that has to be looked into.
const seen = `version: 1
network_policies:
  seen:
    binaries: [{path: /usr/bin/client}]
    endpoints:
      - {host: api.github.example, port: 443, path: /graphql, protocol: graphql, enforcement: enforce,
         rules: [{allow: {operation_type: query, fields: [viewer]}}]}
      - {host: web.example, port: 80, protocol: rest, enforcement: enforce, rules: [{allow: {method: GET, path: "/**"}}]}
      - {host: web.example, port: 8080, protocol: websocket, enforcement: enforce,
         rules: [{allow: {method: GET, path: /ws}}, {allow: {method: WEBSOCKET_TEXT, path: /ws}}]}
`

// memoryOf reads a size of a process from proc_pid_status(5), in MiB.
func memoryOf(t *testing.T, pid int, key string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	node.Must(t, err)
	for line := range node.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			node.Must(t, err)
			return kib >> 10
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return 0
}

// hold has the client keep connections open, and waits until they are. release
// ends them.
func (b *box) hold(argv ...string) (r node.Result, release func()) {
	t := b.World.T
	t.Helper()
	input, end, err := os.Pipe()
	node.Must(t, err)
	cmd := b.World.Command(append([]string{"--root", b.World.Root, "exec", b.ID, "/usr/bin/client", "idle"}, argv...)...)
	cmd.Stdin = input
	b.World.Launch(cmd)
	input.Close()
	node.Eventually(t, 2*time.Minute, "the connections are held", func() bool { return b.printed(cmd) != "" })
	return node.Outcome{Stdout: b.printed(cmd)}.Results(b.Container)[0], func() {
		t.Helper()
		end.Close()
		b.World.Finish(cmd)
	}
}

// printed is the first line of a command's output, once it is whole.
func (b *box) printed(cmd *exec.Cmd) string {
	line, _, whole := strings.Cut(node.TextOf(cmd.Stdout), "\n")
	if !whole {
		return ""
	}
	return line
}

// What idle connections took is given back when they are closed.
func TestIdleConnectionsAreForgotten(t *testing.T) {
	t.Parallel()
	const connections = 5000
	w := node.New(t, map[string]any{"limits": map[string]any{"connections": 2 * connections}})
	b := newBox(w, "root", permissive, node.Permissive, almighty)
	b.Start()
	pid := b.Info().Supervisor.PID
	node.Worked(t, b.Client("get", "https://"+fakenet.GitHubHost+"/"))
	before := memoryOf(t, pid, "VmRSS")
	start := time.Now()
	r, release := b.hold("-n", strconv.Itoa(connections), "-t", "60s", "-tls", "-alpn", "http/1.1", fakenet.GitHubHost+":443")
	open := memoryOf(t, pid, "VmRSS")
	t.Logf("%d connections after %s: %d MiB before, %d MiB with them: %d KiB each",
		r.Bytes, time.Since(start).Round(time.Second), before, open, (open-before)<<10/max(1, int(r.Bytes)))
	if r.Bytes < connections/2 {
		t.Errorf("only %d connections were taken", r.Bytes)
	}
	release()
	const kept = 80
	node.Eventually(t, time.Minute, fmt.Sprintf("the supervisor has %d MiB more than before at most", kept), func() bool {
		return memoryOf(t, pid, "VmRSS") < before+kept
	})
	t.Logf("%d MiB after them, %d MiB at most", memoryOf(t, pid, "VmRSS"), memoryOf(t, pid, "VmHWM"))
	node.Worked(t, b.Client("get", "http://"+fakenet.WebHost+"/"))
}

// escaped is text for the client's -e.
func escaped(b string) string {
	var out strings.Builder
	for i := range len(b) {
		fmt.Fprintf(&out, `\x%02x`, b[i])
	}
	return out.String()
}

// frame is one of HTTP/2 (RFC 9113 section 4.1).
func frame(kind, flags byte, stream int, payload string) string {
	n := len(payload)
	return string([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, 0, 0, byte(stream >> 8), byte(stream)}) + payload
}

const http2Start = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// Whatever a workload has the supervisor hold, it stays within its memory, and
// answers others.
func TestFloodsStayWithinBounds(t *testing.T) {
	t.Parallel()
	const (
		data, headers, reset, continuation = 0, 1, 3, 9
		endHeaders                         = 4
	)
	// GET / of http://web.example, in HPACK's static table and as a literal.
	request := "\x82\x86\x84\x41\x0bweb.example"
	var lines, resets strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&lines, "%x:\r\n", i)
	}
	resets.WriteString(http2Start)
	for i := range 400 {
		resets.WriteString(frame(headers, endHeaders, 2*i+1, request) + frame(reset, 0, 2*i+1, "\x00\x00\x00\x08"))
	}
	unending := http2Start + frame(headers, 0, 1, request)
	for range 30 {
		unending += frame(continuation, 0, 1, strings.Repeat("\x00\x01a\x01b", 100))
	}
	chunk := strings.Repeat("a", 60000)
	key := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))
	web, github := fakenet.WebHost+":80", fakenet.GitHubHost+":443"

	w := node.New(t)
	w.Policy("bypass", seen)
	b := newBox(w, "root", enforcing, node.Policy("bypass"), almighty)
	b.Start()
	pid := b.Info().Supervisor.PID
	served := func(during string) {
		t.Helper()
		if r := b.Client("get", "-t", "30s", "http://"+fakenet.WebHost+"/other"); !r.OK || r.Status != 200 {
			t.Errorf("%s: another client gets %+v", during, r)
		}
		if rss := memoryOf(t, pid, "VmRSS"); rss > 320 {
			t.Errorf("%s: the supervisor has %d MiB", during, rss)
		}
	}
	served("before")
	for _, flood := range []struct {
		name string
		argv []string
	}{
		{"half ClientHellos", []string{"-n", "2000", "-e", github, escaped("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")}},
		{"half request lines", []string{"-n", "1000", web, "GET /" + strings.Repeat("x", 3000)}},
		{"headers", []string{"-n", "300", web, "GET / HTTP/1.1\r\nHost: web.example\r\n" + lines.String()}},
		{"CONTINUATION", []string{"-n", "100", "-e", web, escaped(unending)}},
		{"rapid reset", []string{"-n", "50", "-e", web, escaped(resets.String())}},
		{"frames that do not come", []string{"-n", "300", "-e", web, escaped(http2Start + "\x0f\x00\x00\x00\x00\x00\x00\x00\x01")}},
		{"bodies", []string{"-n", "200", "-tls", "-alpn", "http/1.1", github,
			"POST /graphql HTTP/1.1\r\nHost: api.github.example\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n" + chunk}},
		{"messages", []string{"-n", "300", "-e", "-answered", fakenet.WebHost + ":8080", escaped("GET /ws HTTP/1.1\r\nHost: web.example:8080\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n\x81\xff\x00\x00\x00\x00\x00\x40\x00\x00abcdxxxx")}},
	} {
		start := time.Now()
		r, release := b.hold(append([]string{"-t", "30s"}, flood.argv...)...)
		served(flood.name)
		t.Logf("%s: %d stand after %s, %d MiB", flood.name, r.Bytes, time.Since(start).Round(time.Millisecond), memoryOf(t, pid, "VmRSS"))
		release()
	}
	r := b.Client("ask", "-n", "10000", "-t", "2s", "exfil.example")
	served("names")
	t.Logf("names: %d answers, %d MiB, %d MiB at most", r.Bytes, memoryOf(t, pid, "VmRSS"), memoryOf(t, pid, "VmHWM"))
	node.Eventually(t, time.Minute, "the supervisor is small again", func() bool { return memoryOf(t, pid, "VmRSS") < 160 })
}

// A connection that carries nothing ends, however it is carried.
func TestSilentConnectionsEnd(t *testing.T) {
	t.Parallel()
	w := node.New(t, map[string]any{"limits": map[string]any{"idle_timeout": "1s"}})
	w.Policy("bypass", "version: 1\nnetwork_policies:\n  echo: {endpoints: [{host: echo.example, port: 7}], binaries: [{path: /usr/bin/client}]}\n")
	b := newBox(w, "uid 1000", enforcing, node.Policy("bypass"), ordinary)
	b.Start()
	_, release := b.hold("-answered", fakenet.EchoHost+":7", "hello")
	defer release()
	b.logged("limits.idle_timeout", fakenet.EchoHost)
}
