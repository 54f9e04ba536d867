// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What is one protocol's own is in files of its name, so that another one touches few: beside
// those, only the schema and the tables know protocols apart. ProtocolREST stands for HTTP
// elsewhere too.
func TestProtocolsAreKnownInFewPlaces(t *testing.T) {
	shared := map[string]bool{"policy/schema.go": true, "policy/engine/inspector.go": true, "policy/prover/protocol.go": true}
	own := map[string]bool{"websocket.go": true, "graphql.go": true, "jsonrpc.go": true, "mcp.go": true, "sql.go": true}
	mention := regexp.MustCompile(`\bProtocol(WebSocket|GraphQL|JSONRPC|MCP|SQL)\b|"(graphql|json-rpc|mcp)"`)
	root := os.DirFS("..")
	used := map[string]bool{}
	for _, dir := range []string{"policy", "proxy", "cmd", "internal", "runtime"} {
		err := fs.WalkDir(root, dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "policytest") {
				return err
			}
			text, err := fs.ReadFile(root, path)
			if err != nil || !mention.Match(text) {
				return err
			}
			switch used[path] = true; {
			case shared[path], strings.HasPrefix(path, "policy/") && own[filepath.Base(path)]:
			default:
				t.Errorf("%s knows protocols apart: %s", path, mention.Find(text))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for path := range shared {
		if !used[path] {
			t.Errorf("%s does not: the test says too little", path)
		}
	}
}

// Copies share nothing, whatever fields there are.
func TestCloneIsDeep(t *testing.T) {
	strict := true
	p := &Policy{
		Version: 1, Filesystem: &Filesystem{ReadOnly: []string{"/a"}}, Landlock: &Landlock{}, Process: &Process{},
		Network: map[string]*Rule{"r": {Binaries: []Binary{{"/b"}}, Endpoints: []Endpoint{{
			Ports: []uint16{1}, AllowedIPs: []string{}, Rules: []L7Allow{{L7Match{Query: map[string]Matcher{"q": {[]string{"x"}}}, Fields: []string{"f"}}}},
			GraphQLPersistedQueries: map[string]GraphQLOperation{"k": {Fields: []string{"f"}}}, MCP: &MCPOptions{StrictToolNames: &strict},
		}}}, "nil": nil},
	}
	before := jsonText(p)
	c := p.Clone()
	if jsonText(c) != before || c.Network["r"].Endpoints[0].AllowedIPs == nil || c.Network["r"].Endpoints[0].DenyRules != nil {
		t.Errorf("not the same: %s", jsonText(c))
	}
	e := &c.Network["r"].Endpoints[0]
	e.Ports[0], e.Rules[0].Allow.Query["q"].Any[0], e.Rules[0].Allow.Fields[0] = 2, "y", "g"
	e.GraphQLPersistedQueries["k"].Fields[0], *e.MCP.StrictToolNames = "g", false
	e.GraphQLPersistedQueries["l"] = GraphQLOperation{}
	c.Filesystem.ReadOnly[0], c.Network["r"].Binaries[0].Path = "/c", "/c"
	if jsonText(p) != before {
		t.Errorf("shared: %s", jsonText(p))
	}
}
