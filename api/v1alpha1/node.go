package v1alpha1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"muster.dev/muster/internal/fleet"
)

// MaxInput bounds one file or request body, in bytes.
const MaxInput = 4 << 20

// Bounds of a document's shape, so that nesting and YAML aliases cannot grow
// without limit.
const (
	maxDepth = 64
	maxNodes = 200_000
)

type kind byte

const (
	kindNull kind = iota
	kindString
	kindNumber
	kindBool
	kindList
	kindObject
)

func (k kind) String() string {
	return [...]string{"nothing", "a string", "a number", "true or false", "a list", "an object"}[k]
}

// node is a YAML or JSON value before its type is known. Scalars keep the
// text they were written as, so that an env value 1.10 stays "1.10".
type node struct {
	kind  kind
	text  string
	line  int // 0 in JSON
	loose bool
	keys  []string
	items []*node // list items, or the values of keys
}

// reader turns text into nodes within the bounds above.
type reader struct {
	nodes    int
	problems *problems
}

func (r *reader) add() error {
	if r.nodes++; r.nodes > maxNodes {
		return &fleet.FieldError{Field: "document", Wrong: fmt.Sprintf("has more than %d values (aliases counted where they are used)", maxNodes), Right: "a smaller document"}
	}
	return nil
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntaxError gives a parser's message the form of our own.
func syntaxError(format string, err error) *fleet.FieldError {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	f := &fleet.FieldError{Field: "document", Right: format + " as in the examples"}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		f.Line, _ = strconv.Atoi(m[1]) // the pattern holds digits only
		text = strings.Replace(text, m[0], "", 1)
	}
	f.Wrong = "cannot be read: " + text
	return f
}

// readYAML reads every document of a YAML stream; empty ones are left out.
func readYAML(src []byte, ps *problems) ([]*node, error) {
	if len(src) > MaxInput {
		return nil, &fleet.FieldError{Field: "document", Wrong: fmt.Sprintf("has %d bytes", len(src)), Right: fmt.Sprintf("at most %d", MaxInput)}
	}
	if !utf8.Valid(src) {
		return nil, &fleet.FieldError{Field: "document", Wrong: "is not UTF-8 text", Right: "YAML in UTF-8"}
	}
	r := &reader{problems: ps}
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var docs []*node
	for {
		var y yaml.Node
		err := dec.Decode(&y)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, syntaxError("YAML", err)
		}
		n, err := r.fromYAML(&y, place{}, 0)
		if err != nil {
			return nil, err
		}
		if n != nil && n.kind != kindNull {
			docs = append(docs, n)
		}
	}
}

func (r *reader) fromYAML(y *yaml.Node, at place, depth int) (*node, error) {
	if err := r.add(); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, &fleet.FieldError{Field: at.String(), Line: y.Line, Wrong: "is nested too deep", Right: fmt.Sprintf("at most %d levels", maxDepth)}
	}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return nil, nil
		}
		return r.fromYAML(y.Content[0], at, depth)
	case yaml.AliasNode:
		n, err := r.fromYAML(y.Alias, at, depth+1)
		if n != nil {
			n.line = y.Line
		}
		return n, err
	case yaml.SequenceNode:
		n := &node{kind: kindList, line: y.Line, loose: true}
		for i, c := range y.Content {
			item, err := r.fromYAML(c, at.item(i), depth+1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		return n, nil
	case yaml.MappingNode:
		return r.fromMapping(y, at, depth)
	case yaml.ScalarNode:
		return r.fromScalar(y, at), nil
	}
	return &node{line: y.Line, loose: true}, nil
}

func (r *reader) fromMapping(y *yaml.Node, at place, depth int) (*node, error) {
	n := &node{kind: kindObject, line: y.Line, loose: true}
	seen := map[string]int{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		switch {
		case k.Kind != yaml.ScalarNode:
			r.problems.add(&fleet.FieldError{Field: at.String(), Line: k.Line, Wrong: "has a list or an object as a key", Right: "plain text before the colon"})
			continue
		case k.ShortTag() == "!!merge":
			r.problems.add(&fleet.FieldError{Field: at.String(), Line: k.Line, Wrong: "uses the merge key <<, which is not supported", Right: "the fields written out (aliases *x as whole values work)"})
			continue
		}
		if first, dup := seen[k.Value]; dup {
			r.problems.add(&fleet.FieldError{Field: at.key(k.Value).String(), Line: k.Line, Wrong: fmt.Sprintf("is given twice, first in line %d", first), Right: "one of the two"})
			continue
		}
		seen[k.Value] = k.Line
		child, err := r.fromYAML(v, at.key(k.Value), depth+1)
		if err != nil {
			return nil, err
		}
		if child.line = k.Line; child.kind == kindNull {
			child.text = ""
		}
		n.keys = append(n.keys, k.Value)
		n.items = append(n.items, child)
	}
	return n, nil
}

func (r *reader) fromScalar(y *yaml.Node, at place) *node {
	n := &node{kind: kindString, text: y.Value, line: y.Line, loose: true}
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.kind = kindNull
	case "!!int", "!!float":
		n.kind = kindNumber
	case "!!bool":
		n.kind = kindBool
	case "!!str", "!!timestamp":
	default:
		r.problems.add(&fleet.FieldError{Field: at.String(), Line: y.Line, Wrong: "has the YAML tag " + tag, Right: "a plain value without a tag"})
	}
	return n
}

// readJSON reads one JSON value and nothing behind it.
func readJSON(src []byte, ps *problems) (*node, error) {
	if len(src) > MaxInput {
		return nil, &fleet.FieldError{Field: "document", Wrong: fmt.Sprintf("has %d bytes", len(src)), Right: fmt.Sprintf("at most %d", MaxInput)}
	}
	if !utf8.Valid(src) {
		return nil, &fleet.FieldError{Field: "document", Wrong: "is not UTF-8 text", Right: "JSON in UTF-8"}
	}
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	r := &reader{problems: ps}
	n, err := r.fromJSON(dec, place{}, 0)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err == nil {
			err = errors.New("there is more text behind the value")
		}
	}
	var f *fleet.FieldError
	if errors.As(err, &f) {
		return nil, err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return nil, &fleet.FieldError{Field: "document", Wrong: "cannot be read: " + err.Error(), Right: "JSON"}
}

func (r *reader) fromJSON(dec *json.Decoder, at place, depth int) (*node, error) {
	if err := r.add(); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, &fleet.FieldError{Field: at.String(), Wrong: "is nested too deep", Right: fmt.Sprintf("at most %d levels", maxDepth)}
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := tok.(type) {
	case nil:
		return &node{}, nil
	case string:
		return &node{kind: kindString, text: t}, nil
	case json.Number:
		return &node{kind: kindNumber, text: t.String()}, nil
	case bool:
		return &node{kind: kindBool, text: strconv.FormatBool(t)}, nil
	case json.Delim:
		if t == '[' {
			return r.fromArray(dec, at, depth)
		}
		return r.fromObject(dec, at, depth)
	}
	return nil, fmt.Errorf("unexpected %v", tok)
}

func (r *reader) fromArray(dec *json.Decoder, at place, depth int) (*node, error) {
	n := &node{kind: kindList}
	for i := 0; dec.More(); i++ {
		item, err := r.fromJSON(dec, at.item(i), depth+1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, item)
	}
	_, err := dec.Token()
	return n, err
}

func (r *reader) fromObject(dec *json.Decoder, at place, depth int) (*node, error) {
	n := &node{kind: kindObject}
	var seen map[string]bool
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := tok.(string)
		if !ok {
			return nil, fmt.Errorf("unexpected %v as a key", tok)
		}
		v, err := r.fromJSON(dec, at.key(key), depth+1)
		if err != nil {
			return nil, err
		}
		if seen == nil {
			seen = make(map[string]bool, 8)
		}
		if seen[key] {
			r.problems.add(&fleet.FieldError{Field: at.key(key).String(), Wrong: "is given twice", Right: "one of the two"})
			continue
		}
		seen[key] = true
		n.keys = append(n.keys, key)
		n.items = append(n.items, v)
	}
	_, err := dec.Token()
	return n, err
}

// raw appends a node that was read from JSON as JSON again: what is only passed
// on.
func (n *node) raw(b []byte) []byte {
	switch n.kind {
	case kindString:
		text, _ := json.Marshal(n.text) // a string always can be
		return append(b, text...)
	case kindObject:
		for i, key := range n.keys {
			text, _ := json.Marshal(key)
			b = append(append(append(b, "{,"[min(i, 1)]), text...), ':')
			b = n.items[i].raw(b)
		}
		if len(n.keys) == 0 {
			b = append(b, '{')
		}
		return append(b, '}')
	case kindList:
		b = append(b, '[')
		for i, item := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.raw(b)
		}
		return append(b, ']')
	case kindNull:
		return append(b, "null"...)
	case kindNumber, kindBool:
	}
	return append(b, n.text...)
}
