// SPDX-License-Identifier: Apache-2.0

package try

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeFiles makes files by their mode, and directories, whose names end with a slash.
func makeFiles(t *testing.T, root string, modes map[string]os.FileMode) {
	t.Helper()
	for name, mode := range modes {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
		} else {
			must(t, os.WriteFile(path, []byte(name), 0o600))
		}
		must(t, os.Chmod(path, mode))
	}
}

func TestHideByMode(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.Chmod(root, 0o755))
	makeFiles(t, root, map[string]os.FileMode{
		"open": 0o644, "setuid": 0o4755, "secret": 0o640, "none": 0, "dir/": 0o755, "dir/open": 0o644, "dir/secret": 0o600,
		"closed/": 0o750, "closed/open": 0o644, "closed/other": 0o644, "search/": 0o711, "search/open": 0o644, "list/": 0o754, "list/open": 0o644,
	})
	must(t, os.Symlink("secret", filepath.Join(root, "link")))
	for _, tt := range []struct{ granted, want string }{
		{"", "closed dir/secret list none search secret"},
		{".", "closed dir/secret list none search secret"}, // all of it, as policies grant /etc
		{"secret", "closed dir/secret list none search"},
		{"dir", "closed dir/secret list none search secret"},
		{"closed", "dir/secret list none search secret"},
		{"closed/open", "closed/other dir/secret list none search secret"},
		{"closed/missing", "closed/open closed/other dir/secret list none search secret"},
	} {
		var granted, hidden []string
		if tt.granted != "" {
			granted = append(granted, filepath.Join(root, tt.granted))
		}
		must(t, hideByMode(&hidden, root, granted))
		for i := range hidden {
			hidden[i] = strings.TrimPrefix(hidden[i], root+"/")
		}
		slices.Sort(hidden)
		if got := strings.Join(hidden, " "); got != tt.want {
			t.Errorf("granted %q: hidden %q, want %q", tt.granted, got, tt.want)
		}
	}
}

func TestFindHomes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes homes of others: needs root")
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	makeFiles(t, root, map[string]os.FileMode{"ann/": 0o700, "bob/": 0o755, "svc/": 0o755, "shared/": 0o755, "service/": 0o755})
	for name, uid := range map[string]int{"ann": 1001, "bob": 1002, "svc": 1003, "service": 999} {
		must(t, os.Chown(filepath.Join(root, name), uid, uid))
	}
	var all []account
	for _, a := range []account{{"root", 0, "/root"}, {"ann", 1001, "ann"}, {"bob", 1002, "bob"}, {"svc", 1003, "bob/../svc"},
		{"daemon", 999, "service"}, {"odd", 1004, "shared"}, {"nobody", 65534, "/"}, {"gone", 1005, "gone"}, {"slash", 1006, "/"}} {
		if !strings.HasPrefix(a.home, "/") {
			a.home = root + "/" + a.home
		}
		all = append(all, a)
	}
	for _, tt := range []struct {
		env    map[string]string
		others string
	}{
		{map[string]string{"HOME": "/root"}, "ann bob svc"},
		{map[string]string{"HOME": "/root", "SUDO_UID": "1001"}, "bob svc"},
		{map[string]string{"DOAS_USER": "bob"}, "ann svc"},
		{map[string]string{"HOME": root + "/bob"}, "ann svc"},
		{map[string]string{"HOME": root + "/ann/sub"}, "ann bob svc"}, // which is not there
	} {
		h := findHomes(all, func(name string) string { return tt.env[name] })
		var others []string
		for _, dir := range h.others {
			if name, ok := strings.CutPrefix(dir, root+"/"); ok { // this machine has homes too
				others = append(others, name)
			}
		}
		slices.Sort(others)
		if got := strings.Join(others, " "); got != tt.others {
			t.Errorf("%v: others %q, want %q", tt.env, got, tt.others)
		}
		for dir, want := range map[string]bool{"/": true, root: true, root + "/bob": true, root + "/bob/project": false, root + "/shared": false} {
			if got := h.holds(dir); got != want {
				t.Errorf("%v: %s holds a home: %t", tt.env, dir, got)
			}
		}
	}
}

func TestAccounts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	must(t, os.WriteFile(file, []byte("root:x:0:0:root:/root:/bin/bash\n\n+::::::\n# a comment\nann:x:1001:1001::/home/ann:/bin/sh\nbad:x:y:1::/:/\n"), 0o644))
	got, err := accounts(file)
	if err != nil || !slices.Equal(got, []account{{"root", 0, "/root"}, {"ann", 1001, "/home/ann"}}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := accounts(file + "-none"); err != nil || len(got) > 0 {
		t.Errorf("no file: %v, %v", got, err)
	}
}

func TestEnvironment(t *testing.T) {
	os.Clearenv()
	for name, value := range map[string]string{"PATH": "/bin", "TOKEN": "secret", "EMPTY": "", "OPENSHELL_CONFIG": "/c", "HOME": "/h"} {
		t.Setenv(name, value)
	}
	for _, tt := range []struct {
		extra []string
		all   bool
		want  string
	}{
		{nil, false, "HOME=/h PATH=/bin"},
		{nil, true, "EMPTY= HOME=/h PATH=/bin TOKEN=secret"},
		{[]string{"TOKEN", "EMPTY", "MISSING"}, false, "EMPTY= HOME=/h PATH=/bin TOKEN=secret"},
		{[]string{"TOKEN=other=1", "HOME=/new", "A="}, false, "A= HOME=/new PATH=/bin TOKEN=other=1"},
		{[]string{"TOKEN=", "OPENSHELL_CONFIG"}, true, "EMPTY= HOME=/h OPENSHELL_CONFIG=/c PATH=/bin TOKEN="},
	} {
		env := environment(tt.extra, tt.all)
		slices.Sort(env)
		if got := strings.Join(env, " "); got != tt.want {
			t.Errorf("%v, %t: %q, want %q", tt.extra, tt.all, got, tt.want)
		}
	}
}

func BenchmarkHidden(b *testing.B) {
	c := newConfig(b)
	for b.Loop() {
		if _, err := hiddenOf(c, nil); err != nil {
			b.Fatal(err)
		}
	}
}
