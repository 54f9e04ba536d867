// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"openshell.ai/openshell/test/cases"
)

// test is a test function that shows rows.
type test struct {
	dir, name string // its package's directory, and its own name
	rows      []string
}

// find looks for the tests below a directory that show rows: those with a row's name in them, or in
// a table or function of their package that they use.
func find(root string) (found []test, err error) {
	packages := map[string]pkg{}
	fset := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (d.Name() == "testdata" || d.Name() == "cases" || strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir // the tests of this program name rows that they do not show
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		if packages[dir] == nil {
			packages[dir] = pkg{}
		}
		return packages[dir].add(fset, file)
	})
	if err != nil {
		return nil, err
	}
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		for _, name := range slices.Sorted(maps.Keys(packages[dir])) {
			if !strings.HasPrefix(name, "Test") || name == "TestMain" {
				continue
			}
			if rows := packages[dir].rows(name, map[string]bool{}); len(rows) > 0 {
				found = append(found, test{dir, name, rows})
			}
		}
	}
	return found, nil
}

// pkg has the declarations of a package's tests, by their names.
type pkg map[string]*declaration

type declaration struct {
	rows []string
	uses []string // identifiers, which may be those of other declarations
}

func (p pkg) add(fset *token.FileSet, file *ast.File) error {
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if err := p.declare(fset, decl.Name.Name, decl); err != nil {
				return err
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok {
					for _, name := range v.Names {
						if err := p.declare(fset, name.Name, v); err != nil {
							return err
						}
					}
				}
			}
		}
	}
	return nil
}

// declare takes up what is in a declaration. A row in a call of Show that is not known is an error:
// the test would say so only once it runs. Methods of one name count as one.
func (p pkg) declare(fset *token.FileSet, name string, node ast.Node) (err error) {
	if p[name] == nil {
		p[name] = &declaration{}
	}
	d := p[name]
	ast.Inspect(node, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Ident:
			d.uses = append(d.uses, n.Name)
		case *ast.BasicLit:
			if row, ok := text(n); ok && cases.Known(row) {
				d.rows = append(d.rows, row)
			}
		case *ast.CallExpr:
			for _, arg := range shown(n) {
				if row, ok := text(arg); ok && !cases.Known(row) && err == nil {
					err = fmt.Errorf("%s: test/cases has no row %q", fset.Position(arg.Pos()), row)
				}
			}
		}
		return true
	})
	return err
}

// rows are those of a declaration and of what it uses.
func (p pkg) rows(name string, seen map[string]bool) []string {
	d := p[name]
	if d == nil || seen[name] {
		return nil
	}
	seen[name] = true
	rows := slices.Clone(d.rows)
	for _, used := range d.uses {
		rows = append(rows, p.rows(used, seen)...)
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// shown are the rows that a call names, where it is one of cases.Show.
func shown(call *ast.CallExpr) []ast.Expr {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "Show" || len(call.Args) == 0 {
		return nil
	}
	if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "cases" {
		return nil
	}
	return call.Args[1:]
}
