// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pathTakers are packages whose functions take paths of the host.
var pathTakers = map[string]bool{"os": true, "unix": true, "syscall": true, "filepath": true, "mount": true, "securejoin": true}

// intoRoot finds what stands for a root file system's path on the host.
var intoRoot = regexp.MustCompile(`(?i)root_?fs|\bRoot\.Path\b|/root\b`)

// allowed are calls that touch the place of a root file system itself, before or
// after there is one: FILE: CALL.
var allowed = map[string]bool{
	`shim/service.go: filepath.Join(r.Bundle, "rootfs")`:          true, // where to mount it
	`shim/service.go: mount.UnmountRecursive(k.rootfs, 0)`:        true,
	`cmd/openshell/try/bundle.go: filepath.Join(b.dir, "rootfs")`: true,
	`cmd/openshell/try/bundle.go: os.Mkdir(b.rootfs(), 0o755)`:    true,
}

// Nobody but this package makes a path of the host that leads into a root file
// system: whatever link is there by then would be followed. The type Location
// keeps the path to itself; the rest is read here.
func TestNobodyElseHasPathsBelow(t *testing.T) {
	top := filepath.Join("..", "..")
	seen, files := map[string]bool{}, 0
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(top, name)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if rel == "test" || rel == "hack" || rel == "internal/rootfs" || rel != "." && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		files++
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, call := range pathCalls(t, rel, source) {
			seen[call] = true
			if !allowed[call] {
				t.Errorf("%s: take it from a rootfs.Root", call)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were read", files)
	}
	for call := range allowed {
		if !seen[call] {
			t.Errorf("%s: no longer there", call)
		}
	}
}

// pathCalls returns the calls with a path that leads into a root file system.
func pathCalls(t *testing.T, name string, source []byte) (calls []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Imports {
		if strings.Contains(i.Path.Value, "filepath-securejoin") {
			calls = append(calls, name+": import "+i.Path.Value)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		selector, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if from, ok := selector.X.(*ast.Ident); !ok || !pathTakers[from.Name] {
			return true
		}
		for _, arg := range call.Args {
			if intoRoot.MatchString(types.ExprString(arg)) {
				calls = append(calls, name+": "+types.ExprString(call))
				break
			}
		}
		return true
	})
	return calls
}

func TestPathCalls(t *testing.T) {
	for code, want := range map[string]bool{
		`os.Open(s.request.Rootfs + "/etc")`:                     true,
		`filepath.Join(absolute(bundle, spec.Root.Path), "etc")`: true,
		`unix.Open(fmt.Sprintf("/proc/%d/root", pid), 0, 0)`:     true,
		`unix.Rmdir(filepath.Join(rootfs, stub))`:                true,
		`os.Open(rootDir)`: false,
		`rootfs.At(absolute(bundle, spec.Root.Path))`: false,
		`os.Stat(filepath.Join(c.Root, c.ID))`:        false,
	} {
		if got := len(pathCalls(t, "x.go", []byte("package x\nvar _ = "+code))) > 0; got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
}
