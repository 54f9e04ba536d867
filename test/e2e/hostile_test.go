// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"openshell.ai/openshell/internal/learn"
	"openshell.ai/openshell/test/fakenet"
	"openshell.ai/openshell/test/node"
)

// hostile makes names that no terminal, log or policy should see as they are, sends a
// secret again and again, and touches ten thousand different files and paths.
const hostile = `
esc=$(printf '\033[31mred'); nl=$(printf 'a\nb')
for name in "$esc" "$nl" "$(printf '\377\r')"; do
	mkdir "/data/$name"; echo x > "/data/$name/file"; cat "/data/$name/file"
	echo x > "/srv/sub/$name"
	echo x > "/etc/$name" || true
done
for host in '\027[31mred.example' 'a\010b.example' '\"\;\$\(id\).example'; do agent dns "$host" A || true; done
agent connect-proxy 10.200.0.1:3128 "$(printf 'red\033[31m.example:443')" / || true
agent connect-proxy 10.200.0.1:3128 "$(printf 'two\nlines.example:443')" / || true
agent tcp web.example:80 "$(printf 'GET /\033[31m/x HTTP/1.1\r\nHost: red\033[31m\r\n\r\nx')" || true
for i in 1 2 3 4 5 6; do agent get https://api.github.example/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe; done
cat /root/.ssh/id_rsa
cat /srv/many/*/*
echo finished
`

func TestHostileWorkload(t *testing.T) {
	t.Parallel()
	w := node.New(t)
	const secret = "AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw"
	c := w.Container(node.Policy("hostile"), node.Permissive, node.Script(hostile))
	for _, dir := range []string{"srv/sub", "root/.ssh"} {
		node.Must(t, os.MkdirAll(filepath.Join(c.Rootfs(), dir), 0o755))
	}
	node.Must(t, os.WriteFile(filepath.Join(c.Rootfs(), "root/.ssh/id_rsa"), []byte("key"), 0o600))
	for i := range 100 {
		dir := filepath.Join(c.Rootfs(), "srv/many", "dir"+word(i))
		node.Must(t, os.MkdirAll(dir, 0o755))
		for j := range 100 {
			node.Must(t, os.WriteFile(filepath.Join(dir, "file"+word(j)), nil, 0o644))
		}
	}
	finished(t, c.Run())
	c.AwaitEnd()
	log := w.AuditLog(c)
	visit := []string{node.ClientPath, "get"}
	for i := range 10000 {
		visit = append(visit, "http://"+fakenet.WebHost+"/pages/"+word(i/100)+"/"+word(i%100)+"/"+word(i%7))
	}
	c = w.Container(node.Policy("hostile"), node.Permissive, node.Args(visit...))
	if o := c.Run(); o.Status != 0 {
		t.Fatalf("status %d: %.400s", o.Status, o.Stderr)
	}
	c.AwaitEnd()
	granted := []string{"r /root/.ssh/id_rsa", "r /srv/many", "w /data", "w /etc", "w /srv/sub"}
	if got := w.Granted("hostile"); !slices.Equal(got, granted) {
		t.Errorf("paths proposed: %q, want %q", got, granted)
	}
	for host, rules := range map[string]string{fakenet.GitHubHost: `^GET /\*/getMe$`, fakenet.WebHost: `^GET /pages/\*/\*/[a-z]+$`} {
		for _, rule := range node.Allows(w.ProposalFor("hostile", host)) {
			if !regexp.MustCompile(rules).MatchString(rule) {
				t.Errorf("%s: proposed %s", host, rule)
			}
		}
	}

	// What was cut short, or is sensitive, is left out, and that is a failure.
	shown := w.Operate("proposals", "hostile")
	o := w.OpenShell("approve", "hostile", "--all")
	for _, p := range w.ProposalsOf(learn.KindFilesystem, "hostile") {
		shown += w.Operate("show", p.ID)
		if cut := slices.Contains(p.Filesystem.ReadOnly, "/srv/many") || slices.Contains(p.Filesystem.ReadWrite, "/etc"); cut != (p.Status == learn.StatusPending) ||
			cut && (o.Status == 0 || !strings.Contains(o.Stderr, p.ID)) {
			t.Errorf("%s is %s: approve --all: %s", p.Rationale, p.Status, o)
		}
	}
	shown += w.Operate("policy", "show", "hostile")
	onlyText(t, "the review", shown+o.Stdout+o.Stderr)
	log += w.AuditLog(c)
	onlyText(t, "the log", log)
	for line := range node.Lines(log) {
		if !logLine.MatchString(line) {
			t.Errorf("a line of the log that is none: %q", line)
		}
	}
	node.Must(t, filepath.WalkDir(w.StateDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), secret) {
			t.Errorf("%s has the secret", path)
		}
		return err
	}))
}

var logLine = regexp.MustCompile(`^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z OCSF [A-Z_:]+ \[[A-Z]+\] `)

// onlyText fails where a text can do something to a terminal.
func onlyText(t *testing.T, what, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%s is not fit to show: %q", what, text[max(0, i-80):min(len(text), i+20)])
	}
}

// word is a name without a digit: a different one for each number.
func word(i int) string {
	return string([]byte{'a' + byte(i/676%26), 'a' + byte(i/26%26), 'a' + byte(i%26), 'x'})
}
