package lint

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// keyOf is the key under which a log line names something, by how the
// expression that gives its id ends.
var keyOf = []struct {
	expression *regexp.Regexp
	key        string
}{
	{regexp.MustCompile(`(?i)(^|\.)(task|t)\.id$|(?i)taskid$`), "task"},
	{regexp.MustCompile(`(?i)(^|\.)(sandbox|box)(\.spec)?\.id$|(?i)sandboxid$`), "sandbox"},
	{regexp.MustCompile(`(?i)(^|\.)node\.id$`), "node"},
	{regexp.MustCompile(`(?i)decision(\.seq)?$`), "decision"},
}

// TestLogKeys: what a log line is about has the same key everywhere, so that all
// lines of a task, a sandbox or a decision are found by one search.
func TestLogKeys(t *testing.T) {
	seen := 0
	for _, f := range tree(t) {
		if f.test || !strings.HasPrefix(f.dir, "internal/") && !strings.HasPrefix(f.dir, "cmd/") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !logs(call) {
				return true
			}
			for i, a := range call.Args[:len(call.Args)-1] {
				key, err := strconv.Unquote(literal(a))
				if err != nil {
					continue
				}
				value := source(f, call.Args[i+1])
				for _, k := range keyOf {
					if !k.expression.MatchString(value) {
						continue
					}
					seen++
					if key != k.key {
						t.Errorf("%s: %s is logged as %q; want %q", f.at(a.Pos()), value, key, k.key)
					}
				}
			}
			return true
		})
	}
	if seen < 10 { // or this looks at nothing
		t.Errorf("%d ids are logged in the whole tree", seen)
	}
}

// logs tells a call of a logger with key and value.
func logs(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	return ok && len(call.Args) >= 2 && slices.Contains([]string{"Debug", "Info", "Warn", "Error", "With"}, f.Sel.Name)
}

func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		return l.Value
	}
	return ""
}

func source(f file, e ast.Expr) string {
	file := f.fset.File(e.Pos())
	text := string(f.src[file.Offset(e.Pos()):file.Offset(e.End())])
	if c, ok := e.(*ast.CallExpr); ok && len(c.Args) == 1 { // string(x.ID)
		return source(f, c.Args[0])
	}
	return text
}
