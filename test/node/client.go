// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// ClientPath is where containers have the client (test/client).
const ClientPath = "/usr/bin/client"

// Result is a line of the client's output.
type Result struct {
	OK       bool                `json:"ok"`
	Target   string              `json:"target"`
	Status   int                 `json:"status"`
	Connect  int                 `json:"connect"`
	Header   map[string][]string `json:"header"`
	Body     string              `json:"body"`
	Bytes    int64               `json:"bytes"`
	Issuer   string              `json:"issuer"`
	Answers  []string            `json:"answers"`
	Rcode    string              `json:"rcode"`
	Fields   map[string]string   `json:"fields"`
	Names    []string            `json:"names"`
	Remote   string              `json:"remote"`
	Messages []string            `json:"messages"`
	Close    int                 `json:"close"`
	Millis   int64               `json:"ms"`
	Error    string              `json:"error"`
}

// Results reads the client's lines from its output.
func (o Outcome) Results(c *Container) []Result {
	c.World.T.Helper()
	var list []Result
	for line := range Lines(o.Stdout) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var r Result
		Must(c.World.T, json.Unmarshal([]byte(line), &r))
		list = append(list, r)
	}
	if len(list) == 0 {
		c.World.T.Fatalf("the client printed nothing: %s", o)
	}
	return list
}

// Client executes a command of the client in the container, by the path that the
// client is usually at.
func (c *Container) Client(argv ...string) Result {
	c.World.T.Helper()
	return c.ClientAs(ClientPath, argv...)
}

func (c *Container) ClientAs(path string, argv ...string) Result {
	c.World.T.Helper()
	list := c.Exec(append([]string{path}, argv...)...).Results(c)
	return list[len(list)-1]
}

// Sequence executes several commands of the client in one go and returns the
// result of each, in order.
func (c *Container) Sequence(commands ...[]string) []Result {
	c.World.T.Helper()
	return c.Exec(SequenceOf(commands...)...).Results(c)[:len(commands)]
}

// SequenceOf is the command line of several commands of the client, each of
// which prints one line.
func SequenceOf(commands ...[]string) []string {
	argv := []string{ClientPath, "seq"}
	for i, command := range commands {
		if i > 0 {
			argv = append(argv, ",")
		}
		argv = append(argv, command...)
	}
	return argv
}

// Worked fails unless the origin itself answered with 200.
func Worked(t *testing.T, r Result) {
	t.Helper()
	if !r.OK || r.Status != http.StatusOK || !strings.Contains(r.Body, `"origin"`) {
		t.Fatalf("%s: status %d, error %q, body %q: want the origin's 200", r.Target, r.Status, r.Error, r.Body)
	}
}
