package v1alpha1

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// place names a field. It is a list that grows towards the root, so that
// walking costs nothing and text is made for an error alone.
type place struct {
	up    *place
	name  string
	index int // of an item when name is empty
}

func (p *place) key(name string) place { return place{up: p, name: name, index: -1} }
func (p *place) item(i int) place      { return place{up: p, index: i} }

var plainKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// String is the path as a user would write it: spec.templates[0].labels["a.b"].
func (p place) String() string {
	var parts []string
	for q := &p; q != nil; q = q.up {
		switch {
		case q.up == nil && q.name == "":
		case q.name == "" && q.up != nil && !q.isKey():
			parts = append(parts, "["+strconv.Itoa(q.index)+"]")
		case plainKey.MatchString(q.name):
			parts = append(parts, "."+q.name)
		default:
			parts = append(parts, "["+strconv.Quote(clip(q.name))+"]")
		}
	}
	slices.Reverse(parts)
	s := strings.TrimPrefix(strings.Join(parts, ""), ".")
	if s == "" {
		return "document"
	}
	return s
}

// isKey tells the empty key of an object from an item; the empty key is
// stored with index -1.
func (p *place) isKey() bool { return p.index < 0 }

// sub is base with a field appended.
func sub(base, field string) string {
	if base == "" {
		return field
	}
	return base + "." + field
}

// at is base with an index appended.
func at(base string, i int) string { return base + "[" + strconv.Itoa(i) + "]" }

// in is base with a map key appended.
func in(base, key string) string {
	if plainKey.MatchString(key) {
		return base + "." + key
	}
	return base + "[" + strconv.Quote(clip(key)) + "]"
}

// maxProblems bounds how many problems are told at once.
const maxProblems = 50

// problems gathers what is wrong with a document, the first problem of each
// field.
type problems struct {
	list []*fleet.FieldError
	seen map[string]bool
	more int
}

func (ps *problems) add(f *fleet.FieldError) {
	if ps.seen[f.Field] && f.Field != "document" {
		return
	}
	if ps.seen == nil {
		ps.seen = map[string]bool{}
	}
	ps.seen[f.Field] = true
	if len(ps.list) >= maxProblems {
		ps.more++
		return
	}
	ps.list = append(ps.list, f)
}

// addf adds a problem: what is wrong with field, and what would be right.
func (ps *problems) addf(field, right, wrong string, args ...any) {
	ps.add(&fleet.FieldError{Field: field, Wrong: fmt.Sprintf(wrong, args...), Right: right})
}

// err joins the problems, in the order of lines where these are known.
func (ps *problems) err() error {
	if len(ps.list) == 0 {
		return nil
	}
	sorted := slices.Clone(ps.list)
	slices.SortStableFunc(sorted, func(a, b *fleet.FieldError) int { return a.Line - b.Line })
	errs := make([]error, 0, len(sorted)+1)
	for _, f := range sorted {
		errs = append(errs, f)
	}
	if ps.more > 0 {
		errs = append(errs, &fleet.FieldError{Field: "document", Wrong: fmt.Sprintf("has %d more problems", ps.more)})
	}
	return errors.Join(errs...)
}

// locate gives each problem without a line the line of its field, or of the
// nearest field around it that was written.
func (ps *problems) locate(root *node, prefix string) {
	for _, f := range ps.list {
		if rest, ok := strings.CutPrefix(f.Field, prefix); ok && f.Line == 0 {
			f.Line = root.find(rest)
		}
	}
}

var step = regexp.MustCompile(`^\.?([A-Za-z_][A-Za-z0-9_-]*)|^\[(\d+)\]|^\["((?:[^"\\]|\\.)*)"\]`)

// find is the line of the field at p, or of the deepest part of p that there
// is.
func (n *node) find(p string) int {
	line := n.line
	for p != "" {
		m := step.FindStringSubmatch(p)
		if m == nil {
			return line
		}
		p = p[len(m[0]):]
		next := n.child(m[1]+m[3], m[2])
		if next == nil {
			return line
		}
		n, line = next, next.line
	}
	return line
}

func (n *node) child(key, index string) *node {
	if index != "" {
		if i, err := strconv.Atoi(index); err == nil && n.kind == kindList && i < len(n.items) {
			return n.items[i]
		}
		return nil
	}
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.items[i]
	}
	return nil
}

// clip shortens what a user wrote for a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
