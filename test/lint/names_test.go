package lint

import (
	"bytes"
	"go/ast"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// banned are words that say nothing about the thing they name.
var banned = set("manager", "helper", "helpers", "util", "utils", "info", "misc", "common", "data")

// allowedNames are names fixed by others: interfaces we implement, words of a
// standard, and the data directory, which users know by that name.
var allowedNames = set("DataDir", "WithDataDir", "NewDataDir", "Helper")

// words splits FooBarHTTP into foo, bar, http.
func words(name string) []string {
	var out []string
	start := 0
	r := []rune(name)
	for i := 1; i <= len(r); i++ {
		if i == len(r) || r[i] == '_' || unicode.IsUpper(r[i]) && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			if w := strings.Trim(string(r[start:i]), "_"); w != "" {
				out = append(out, strings.ToLower(w))
			}
			start = i
		}
	}
	return out
}

func TestWords(t *testing.T) {
	for name, want := range map[string]string{"DataDir": "data dir", "HTTPInfo": "http info", "taskID": "task id", "a_b": "a b", "Metadata": "metadata"} {
		if got := strings.Join(words(name), " "); got != want {
			t.Errorf("words(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestNamesSaySomething(t *testing.T) {
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		for _, w := range append(words(f.ast.Name.Name), words(strings.TrimSuffix(f.name, ".go"))...) {
			if banned[w] {
				t.Errorf("%s: %q in the name of a package or file says nothing", f.path(), w)
			}
		}
		for _, id := range declared(f.ast) {
			if !ast.IsExported(id.Name) || allowedNames[id.Name] {
				continue
			}
			for _, w := range words(id.Name) {
				if banned[w] {
					t.Errorf("%s: %s: %q says nothing; name the thing itself", f.at(id.Pos()), id.Name, w)
				}
			}
		}
	}
}

// declared lists the names of top-level functions, types, variables,
// constants and methods.
func declared(f *ast.File) []*ast.Ident {
	var out []*ast.Ident
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			out = append(out, d.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					out = append(out, s.Name)
				case *ast.ValueSpec:
					out = append(out, s.Names...)
				}
			}
		}
	}
	return out
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		documented[f.dir] = documented[f.dir] || f.ast.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment; add a doc.go that says what it is for and what it may import", dir)
		}
	}
}

// TestFilesAreShort is guidance, not a gate, up to twice the length aimed at.
func TestFilesAreShort(t *testing.T) {
	const aim = 400
	for _, f := range tree(t) {
		lines := bytes.Count(f.src, []byte("\n"))
		switch {
		case lines > 2*aim:
			t.Errorf("%s has %d lines; split it (aim at %d)", f.path(), lines, aim)
		case lines > aim && !f.test:
			t.Logf("%s has %d lines; aim at %d", f.path(), lines, aim)
		}
	}
}

var (
	link   = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	target = regexp.MustCompile("`make ([a-z]+)`")
)

// TestDocumentsPointAtThingsThatExist follows the relative links of every
// document and looks for the make targets it names.
func TestDocumentsPointAtThingsThatExist(t *testing.T) {
	root := filepath.Join("..", "..")
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, found...)
	}
	for _, doc := range docs {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(b, -1) {
			to := filepath.Join(filepath.Dir(doc), filepath.FromSlash(string(m[1])))
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s, which does not exist", path.Base(doc), m[1])
			}
		}
		for _, m := range target.FindAllSubmatch(b, -1) {
			if !bytes.Contains(makefile, append([]byte("\n"), append(m[1], ':')...)) {
				t.Errorf("%s names `make %s`, which the Makefile has not", path.Base(doc), m[1])
			}
		}
	}
}
