package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "muster.dev/muster/"

// file is one parsed Go file of the tree.
type file struct {
	dir  string // slash-separated, relative to the module: internal/plan
	name string
	test bool
	ast  *ast.File
	fset *token.FileSet
	src  []byte
}

func (f file) path() string { return path.Join(f.dir, f.name) }

func (f file) at(p token.Pos) string {
	pos := f.fset.Position(p)
	return f.path() + ":" + strconv.Itoa(pos.Line)
}

// tree parses every Go file of the module.
func tree(t *testing.T) []file {
	t.Helper()
	root := filepath.Join("..", "..")
	var files []file
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{
			dir: path.Dir(rel), name: path.Base(rel), test: strings.HasSuffix(rel, "_test.go"),
			ast: parsed, fset: fset, src: src,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("only %d Go files found; the walk is broken", len(files))
	}
	return files
}

// within reports whether dir is one of the prefixes or below one.
func within(dir string, prefixes ...string) bool {
	for _, p := range prefixes {
		if dir == p || strings.HasPrefix(dir, p+"/") {
			return true
		}
	}
	return false
}
