// SPDX-License-Identifier: Apache-2.0

package bypass_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

const webURL = "http://" + fakenet.WebHost + "/"

// namedPrograms lets programs that a rule names, by a path and by patterns, reach one host.
func namedPrograms(binaries string) string {
	return "version: 1\nnetwork_policies:\n  named: {endpoints: [{host: " + fakenet.WebHost + ", port: 80}], binaries: [" + binaries + "]}\n"
}

// A program whose file has no name in the container is none that a rule names, whatever the file was called and
// however wide the rule's pattern is.
func TestProgramWithoutAName(t *testing.T) {
	const patterns = "{path: /**}, {path: '**'}, {path: '/memfd:*'}, {path: '/**/client'}, {path: '/tmp/**'}, {path: '**/client'}"
	get := []string{node.ClientPath, "get", "-t", "20s", webURL + "secret"}
	attempt := func(b *box) {
		b.Start()
		for what, argv := range map[string][]string{
			"in memory":              {"anonymous", "x"},
			"in memory, with a path": {"anonymous", "x/usr/bin/client"},
			"in memory, no name":     {"anonymous", ""},
			"removed":                {"removed", "/tmp/client", "-"},
			"removed with directory": {"removed", "/tmp/usr/bin/client", "-"},
			"one of two names":       {"removed", "/tmp/first", "/tmp/second"},
		} {
			b.World.Net.Reset()
			o := b.Exec(append(append([]string{attemptPath}, argv...), get...)...)
			if got := slices.Contains(b.heard(), "GET "+fakenet.WebHost+" /secret"); got == b.enforced() {
				b.World.T.Errorf("%s: came through: %t\n%s", what, got, o)
			}
			_ = b.Exec("/bin/rm", "-rf", "/tmp/client", "/tmp/usr", "/tmp/first", "/tmp/second")
		}
		for _, name := range []string{"anonymous:x(", "anonymous:x/usr/bin/client(", "anonymous:(", "removed:/tmp/client(", "removed:/tmp/first("} {
			b.logged(name, fakenet.WebHost)
		}
		// The same program is let through by its name.
		b.World.Net.Reset()
		b.judge("the client itself", b.Exec(get...), true, "GET "+fakenet.WebHost+" /secret")
	}
	inEveryBox(t, namedPrograms(patterns), attempt)
	withoutBox(t, attempt)
}

// Who may mount may not put a program in the place of another, for what the rules name is the container's own file.
func TestCoveredProgram(t *testing.T) {
	const evil = "/usr/bin/evil"
	for user, edit := range users {
		for _, mode := range []string{enforcing, permissive} {
			t.Run(user+", "+mode, func(t *testing.T) {
				t.Parallel()
				w := node.New(t, map[string]any{"confinement": map[string]any{"nested_sandboxes": true},
					"seccomp": map[string]any{"default_profile": false}})
				w.Policy("bypass", namedPrograms("{path: "+node.ClientPath+"}"))
				edits := []node.Edit{node.Policy("bypass"), edit}
				if mode == permissive {
					edits = append(edits, node.Permissive)
				}
				b := newBox(w, user, mode, edits...)
				path := filepath.Join(b.Rootfs(), evil)
				node.Must(t, node.CopyFile(filepath.Join(b.Rootfs(), node.ClientPath), path))
				f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				node.Must(t, err)
				_, err = f.WriteString("another")
				node.Must(t, err)
				node.Must(t, f.Close())
				b.Start()
				run := func(file, target string, argv ...string) node.Outcome {
					w.Net.Reset()
					return b.Exec(append([]string{attemptPath, "covered", file, target}, argv...)...)
				}
				get := []string{node.ClientPath, "get", "-t", "20s", webURL + "secret"}
				o := run(evil, node.ClientPath, get...)
				if got := slices.Contains(b.heard(), "GET "+fakenet.WebHost+" /secret"); got == b.enforced() {
					t.Errorf("a program over another came through: %t\n%s", got, o)
				}
				b.logged("other:" + node.ClientPath)
				if got := node.Subjects(w.Settled("bypass")); slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, node.ClientPath) }) {
					t.Errorf("it is proposed as the program that it covers: %q", got)
				}
				b.judge("the same file at its place", run(node.ClientPath, node.ClientPath, get...), true, "GET "+fakenet.WebHost+" /secret")
				b.judge("something else covered", run("/tmp", "/data", get...), true, "GET "+fakenet.WebHost+" /secret")
			})
		}
	}
}
