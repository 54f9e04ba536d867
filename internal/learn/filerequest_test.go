// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"openshell.ai/openshell/policy"
)

func access(op FileOp, path string) FileAccess {
	return FileAccess{Time: start, Path: path, Op: op, Binary: "/usr/bin/agent", Permissive: true, Reason: "the policy does not grant " + path}
}

// written is a write to a file that the workload may have made, in a directory that was there.
func written(path, existing string) FileAccess {
	a := access(OpWrite, path)
	a.Existing = existing
	return a
}

// proposeFiles are the proposals for accesses.
func proposeFiles(accesses ...FileAccess) []Proposal {
	g := NewGatherer("agent")
	for _, a := range accesses {
		g.ObserveFile(permissiveRun("r"), a)
	}
	return g.Proposals()
}

// grantsFor is what the proposals for accesses grant, sorted by path.
func grantsFor(accesses ...FileAccess) []FileGrant {
	var grants []FileGrant
	for _, p := range proposeFiles(accesses...) {
		grants = append(grants, p.FileGrants()...)
	}
	slices.SortFunc(grants, func(a, b FileGrant) int { return strings.Compare(a.Path, b.Path) })
	return grants
}

// granted shows grants as "r /path" and "w /path".
func granted(grants []FileGrant) []string {
	var list []string
	for _, g := range grants {
		mode := "r "
		if g.Write {
			mode = "w "
		}
		list = append(list, mode+g.Path)
	}
	return list
}

func TestFileGrants(t *testing.T) {
	made := func(path, existing string) FileAccess {
		a := access(OpCreate|OpWrite, path)
		a.Existing = existing
		return a
	}
	for name, c := range map[string]struct {
		accesses []FileAccess
		want     []string
	}{
		"exact":                        {[]FileAccess{access(OpRead, "/data/model.bin"), access(OpRead, "/data/model.bin"), access(OpExecute, "/srv/tool")}, []string{"r /data/model.bin", "r /srv/tool"}},
		"read and written":             {[]FileAccess{access(OpRead, "/data/db"), access(OpWrite, "/data/db"), access(OpTruncate, "/data/log")}, []string{"w /data/db", "w /data/log"}},
		"siblings are not a directory": {[]FileAccess{access(OpRead, "/data/a"), access(OpRead, "/data/b"), access(OpRead, "/data/c")}, []string{"r /data/a", "r /data/b", "r /data/c"}},
		"made":                         {[]FileAccess{made("/work/out/a", ""), access(OpRead, "/work/out/a"), access(OpRead, "/work/in")}, []string{"r /work/in", "w /work/out"}},
		"made in a made directory":     {[]FileAccess{made("/work/x/y/z", "/work")}, []string{"w /work"}},
		"existing is elsewhere":        {[]FileAccess{made("/work/x", "/other")}, []string{"w /work"}},
		"removed and renamed":          {[]FileAccess{access(OpDelete, "/work/a"), access(OpRename, "/cache/b")}, []string{"w /cache", "w /work"}},
		"listed":                       {[]FileAccess{access(OpReadDir, "/work"), access(OpRead, "/work/a/b"), access(OpWrite, "/work/c")}, []string{"r /work", "w /work/c"}},
		"the root is not listed":       {[]FileAccess{access(OpReadDir, "/")}, nil},
		"made in the root":             {[]FileAccess{made("/out", "")}, []string{"w /out"}},
		"made in /etc":                 {[]FileAccess{made("/etc/foo", ""), made("/etc/a/b", "/etc")}, []string{"w /etc"}},
		"made below /etc":              {[]FileAccess{made("/etc/myapp/state", "")}, []string{"w /etc/myapp"}},
		"made in /etc/ssh":             {[]FileAccess{made("/etc/ssh/key", "")}, []string{"w /etc/ssh"}},
		"kernel":                       {[]FileAccess{made("/sys/fs/cgroup/x", ""), access(OpWrite, "/dev/mem"), access(OpRead, "/run/secrets/a/token")}, []string{"w /dev/mem", "r /run/secrets/a/token", "w /sys/fs/cgroup"}},
		"a process":                    {[]FileAccess{access(OpRead, "/proc/123/maps"), access(OpRead, "/proc/self/status")}, []string{"r /proc"}},
		"a process's memory":           {[]FileAccess{access(OpWrite, "/proc/123/mem"), access(OpWrite, "/proc/77/task/78/mem"), access(OpDelete, "/proc/self")}, nil},
		"a process is written":         {[]FileAccess{access(OpWrite, "/proc/123/comm"), access(OpWrite, "/proc/77/task/78/comm")}, []string{"w /proc/self/comm"}},
		"a system":                     {[]FileAccess{access(OpRead, "/usr/share/x"), access(OpExecute, "/usr/bin/y"), access(OpRead, "/nix/store/abc-x/lib/y")}, []string{"r /nix/store", "r /usr"}},
		"a system is written":          {[]FileAccess{made("/usr/local/share/x", ""), made("/usr/bin/x", "")}, []string{"w /usr/bin", "w /usr/local/share"}},
		"ids":                          {[]FileAccess{access(OpRead, "/data/objects/550e8400-e29b-41d4-a716-446655440000/blob"), access(OpRead, "/data/objects/7/x")}, []string{"r /data/objects"}},
		"an id too far up":             {[]FileAccess{access(OpRead, "/data/550e8400-e29b-41d4-a716-446655440000"), access(OpRead, "/home/u/1234567")}, []string{"r /data/550e8400-e29b-41d4-a716-446655440000", "r /home/u/1234567"}},
		"temporary":                    {[]FileAccess{access(OpWrite, "/data/db/.x.swp"), access(OpRead, "/cache/a/tmpab12cd34")}, []string{"r /cache/a", "w /data/db"}},
		"not temporary":                {[]FileAccess{access(OpRead, "/src/app/Cargo.lock"), access(OpRead, "/src/app/tmp/x"), access(OpRead, "/src/app/report-2024-01-15.csv")}, []string{"r /src/app/Cargo.lock", "r /src/app/report-2024-01-15.csv", "r /src/app/tmp/x"}},
		"home":                         {[]FileAccess{made("/root/.cache/pip/x", "/root"), access(OpRead, "/root/.ssh/id_rsa"), access(OpRead, "/root/.bashrc")}, []string{"w /root", "r /root/.ssh/id_rsa"}},
		"written and made":             {[]FileAccess{written("/work/out/a/b", "/work"), written("/etc/made/conf", "/etc"), written("/root/.ssh/known_hosts", "/root"), written("/opt/x/y", "/opt/x/y")}, []string{"w /etc", "w /opt/x/y", "w /root/.ssh/known_hosts", "w /work"}},
		"secrets":                      {[]FileAccess{made("/home/u/.aws/cache", ""), access(OpReadDir, "/home/u/.ssh"), access(OpRead, "/home/u/.config/gh/hosts.yml")}, []string{"w /home/u/.aws", "r /home/u/.config/gh/hosts.yml", "r /home/u/.ssh"}},
		"names":                        {[]FileAccess{access(OpRead, "/data/a\nb/c"), access(OpWrite, "/data/d/\xff"), access(OpRead, "/\x1b[2J"), access(OpWrite, "/etc/a\n")}, []string{"r /data", "w /data/d"}},
		"literal wildcards":            {[]FileAccess{access(OpRead, "/data/*"), access(OpRead, "/data/{a,b}")}, []string{"r /data/*", "r /data/{a,b}"}},
		"nonsense":                     {[]FileAccess{access(OpRead, ""), access(OpRead, "relative"), access(0, "/a"), access(OpRead, "/"+strings.Repeat("a/", maxPathBytes))}, nil},
	} {
		got := grantsFor(c.accesses...)
		if !slices.Equal(granted(got), c.want) {
			t.Errorf("%s: %q, want %q", name, granted(got), c.want)
		}
		slices.Reverse(c.accesses)
		if again := grantsFor(c.accesses...); !reflect.DeepEqual(got, again) {
			t.Errorf("%s: the order matters: %+v, %+v", name, got, again)
		}
	}
}

// What is made or replaced in a guarded directory takes the directory, which is a proposal of its own that nobody
// approves unseen; what is there already is named by itself.
func TestSensitiveDirectories(t *testing.T) {
	for name, c := range map[string]struct {
		accesses []FileAccess
		want     string // the directory
		note     string
	}{
		"replaced":  {[]FileAccess{access(OpRead, "/etc/x"), access(OpCreate, "/etc/sedq1w2e3"), access(OpWrite, "/etc/sedq1w2e3"), access(OpRename, "/etc/x")}, "/etc", "accounts"},
		"a pid":     {[]FileAccess{written("/run/x.pid", "/run"), access(OpCreate, "/run/x.pid"), access(OpDelete, "/run/x.pid")}, "/run", "sockets"},
		"enforcing": {[]FileAccess{written("/etc/*", "/etc"), access(OpCreate, "/etc/*")}, "/etc", "accounts"},
		"a key":     {[]FileAccess{access(OpCreate, "/root/.ssh/id_new")}, "/root/.ssh", "keys and passwords"},
		"programs":  {[]FileAccess{access(OpCreate, "/usr/bin/x")}, "/usr/bin", "programs"},
		"made":      {[]FileAccess{written("/var/x/y/z", "/var"), access(OpRead, "/var/x/y/z")}, "/var", "all services"},
	} {
		// Beside it, something that is there.
		all := proposeFiles(append(c.accesses, access(OpWrite, c.want+"/present"))...)
		sensitive, others := 0, 0
		for _, p := range all {
			if !p.Flags.Sensitive {
				others++
				if slices.Contains(p.Filesystem.ReadWrite, c.want) || (Include{}).LeavesOut(&p) != "" {
					t.Errorf("%s: %+v", name, p)
				}
				continue
			}
			sensitive++
			notes := strings.Join(p.SecurityNotes, " ")
			if !slices.Equal(p.Filesystem.ReadWrite, []string{c.want}) || p.Filesystem.ReadOnly != nil || !strings.Contains(notes, "'"+c.want+"' is granted whole") ||
				!strings.Contains(notes, c.note) || (Include{Truncated: true}).LeavesOut(&p) != LeftSensitive || (Include{Sensitive: true}).LeavesOut(&p) != "" {
				t.Errorf("%s: %+v %q", name, *p.Filesystem, p.SecurityNotes)
			}
			restored, err := p.evidence()
			if err != nil || restored.target.hash("agent") != p.target().hash("agent") || shortID("agent", p.target()) != p.ID || p.check() != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if sensitive != 1 || others == 0 {
			t.Errorf("%s: %d sensitive proposals and %d others", name, sensitive, others)
		}
	}
}

func TestFileOp(t *testing.T) {
	for op := range FileOp(1 << len(opNames)) {
		text, _ := op.MarshalText()
		var back FileOp
		if err := back.UnmarshalText(text); err != nil || back != op {
			t.Fatalf("%q became %v, %v", text, back, err)
		}
	}
	if s := (OpWrite | OpRead).String(); s != "read,write" {
		t.Error(s)
	}
}

func TestFileRules(t *testing.T) {
	rules := FileRules{ReadOnly: []string{"/usr", "/etc/hosts"}, ReadWrite: []string{"/tmp", "/dev/null"}}
	for path, want := range map[string][3]bool{ // read, write, create
		"/usr/bin/x": {true, false, false}, "/usrx": {}, "/etc/hosts": {true, false, false}, "/etc/passwd": {},
		"/tmp/a": {true, true, true}, "/tmp": {true, true, false}, "/dev/null": {true, true, false}, "/dev/nullx": {},
	} {
		for i, op := range []FileOp{OpRead, OpWrite, OpCreate} {
			if got := rules.Allows(access(op, path)); got != want[i] {
				t.Errorf("%s %s: %v", op, path, got)
			}
		}
	}
}

// Whatever order and portions accesses come in, what is stored is the same.
func TestFileSetOrderDoesNotMatter(t *testing.T) {
	var accesses []FileAccess
	for i := range 900 {
		a := access([]FileOp{OpRead, OpWrite, OpCreate}[i%3], fmt.Sprintf("/work/d%d/e%d/f%d", i%7, i%40, i))
		a.Binary = fmt.Sprintf("/bin/b%d", i%9)
		accesses = append(accesses, a)
	}
	fill := func(list []FileAccess) *fileSet {
		set := newFileSet("/work")
		for _, a := range list {
			n, ok := requestFor(a)
			if !ok {
				t.Fatal("no need")
			}
			set.add(n, a)
		}
		return set
	}
	want := fill(accesses)
	if want.depth == uncut || len(want.uses) > maxFiles {
		t.Errorf("%d uses, cut at %d", len(want.uses), want.depth)
	}
	for range 5 {
		rand.Shuffle(len(accesses), func(i, j int) { accesses[i], accesses[j] = accesses[j], accesses[i] })
		parts := newFileSet("/work")
		for chunk := range slices.Chunk(accesses, 123) {
			part := fill(chunk)
			// as if it had been stored
			data, err := json.Marshal(part.sorted())
			if err != nil {
				t.Fatal(err)
			}
			var uses []FileUse
			if err := json.Unmarshal(data, &uses); err != nil {
				t.Fatal(err)
			}
			restored := newFileSet("/work")
			restored.cut(part.depth)
			for _, u := range uses {
				restored.put(u)
			}
			parts.merge(restored)
		}
		if !reflect.DeepEqual(parts.grants(), want.grants()) {
			t.Fatalf("grants\n%+v\nwant\n%+v", parts.grants(), want.grants())
		}
		for p, u := range want.uses {
			if got := parts.uses[p]; got == nil || got.Op != u.Op || got.Count != u.Count || !slices.Equal(got.Binaries, u.Binaries) {
				t.Fatalf("%s: %+v, want %+v", p, got, u)
			}
		}
	}
}

// Every access stays covered by the grants, however many there are, except in guarded directories.
func TestEveryAccessIsGranted(t *testing.T) {
	var accesses []FileAccess
	for i := range 5000 {
		accesses = append(accesses, access([]FileOp{OpRead, OpWrite, OpCreate, OpReadDir}[i%4], fmt.Sprintf("/t%d/a%d/b%d", i%5, i%300, i)))
	}
	grants := grantsFor(accesses...)
	rules := FileRules{}
	for _, g := range grants {
		if g.Write {
			rules.ReadWrite = append(rules.ReadWrite, g.Path)
		} else {
			rules.ReadOnly = append(rules.ReadOnly, g.Path)
		}
	}
	for _, a := range accesses {
		if !rules.Allows(a) {
			t.Fatalf("%s %s is not granted", a.Op, a.Path)
		}
	}
	if n := len(grants); n > 5*maxFiles {
		t.Errorf("%d grants", n)
	}
	var many []FileAccess
	for i := range 3 * maxFiles {
		many = append(many, access(OpWrite, fmt.Sprintf("/etc/f%d", i)))
	}
	if n := len(grantsFor(many...)); n != maxFiles {
		t.Errorf("%d grants in /etc", n)
	}
}

func FuzzNeedOf(f *testing.F) {
	f.Add("/work/a", "", uint16(OpCreate))
	f.Add("/proc/1/task/2/x", "/proc", uint16(OpWrite))
	f.Add("/a\n/\xff", "..", uint16(OpRead))
	f.Fuzz(func(t *testing.T, path, existing string, op uint16) {
		a := access(FileOp(op), path)
		a.Existing = existing
		n, ok := requestFor(a)
		if !ok {
			return
		}
		if n.path == "/" || !strings.HasPrefix(n.tree(), "/") || n.tree() == "/" && !n.write {
			t.Fatalf("%+v in %q", n, n.tree())
		}
		if n.write && guarded(n.path) && n.path != anyProcess(n.path) {
			t.Fatalf("%+v", n)
		}
		for _, p := range proposeFiles(a) {
			if err := p.check(); err != nil {
				t.Fatal(err)
			}
			if err := (&policy.Policy{Version: 1, Filesystem: p.Filesystem}).Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
