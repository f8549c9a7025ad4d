package plan

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPurity: layer L1 neither reads clocks, files, networks or randomness nor
// starts goroutines, so that a decision can be made again bit for bit.
func TestPurity(t *testing.T) {
	allowed := map[string]bool{
		"bytes": true, "cmp": true, "encoding/json": true, "fmt": true, "math": true, "slices": true,
		"strings": true, "time": true, "sort": true, "errors": true, "strconv": true,
		"container/heap": true, "encoding/binary": true, "math/bits": true,
		"muster.dev/muster/internal/fleet": true, "muster.dev/muster/internal/forecast": true,
	}
	clocks := map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true, "NewTimer": true, "NewTicker": true, "Tick": true, "Local": true, "LoadLocation": true}
	for _, dir := range []string{".", "../forecast"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, name, src, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				if path, _ := strconv.Unquote(i.Path.Value); !allowed[path] {
					t.Errorf("%s imports %s, which layer L1 may not", name, path)
				}
			}
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt:
					t.Errorf("%s: goroutines and channels have no place in layer L1", fset.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && clocks[n.Sel.Name] {
						t.Errorf("%s: time.%s reads the clock or the zone database", fset.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
			for _, d := range f.Decls {
				g, ok := d.(*ast.GenDecl)
				if ok && g.Tok == token.VAR {
					t.Errorf("%s: a package variable is state outside State", fset.Position(g.Pos()))
				}
			}
		}
	}
}
