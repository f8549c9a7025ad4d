package kedaimport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"muster.dev/muster/internal/fleet"
)

// largest bounds a file, in bytes; most bounds the documents in it.
const (
	largest = 4 << 20
	most    = 1000
)

// object is a part of a document that remembers what was asked of it. A nil one
// has nothing.
type object struct {
	path  string // as in the document: spec.triggers[0].metadata
	value map[string]any
	asked map[string]bool
	notes *notes
	subs  []*object
}

// get takes a field; nil where there is none, or null.
func (o *object) get(name string) any {
	if o == nil {
		return nil
	}
	o.asked[name] = true
	return o.value[name]
}

func (o *object) at(name string) string {
	if o.path == "" {
		return name
	}
	return o.path + "." + name
}

// text takes a field that is text, or what YAML made of unquoted text.
func (o *object) text(name string) string {
	switch v := o.get(name).(type) {
	case nil:
		return ""
	case string:
		return v
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v)
	}
	o.notes.add(Todo, o.at(name), "is no text")
	return ""
}

// whole takes a number; ok is false where there is none.
func (o *object) whole(name string) (n int, ok bool) {
	text := o.text(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		o.notes.add(Todo, o.at(name), fmt.Sprintf("%.40q is no whole number", text))
	}
	return n, err == nil
}

// sub takes a field that is an object; an empty one where there is none.
func (o *object) sub(name string) *object {
	if o == nil {
		return nil
	}
	v := o.get(name)
	m, ok := v.(map[string]any)
	if v != nil && !ok {
		o.notes.add(Todo, o.at(name), "is no object")
	}
	return o.child(o.at(name), m)
}

func (o *object) child(path string, m map[string]any) *object {
	c := &object{path: path, value: m, asked: map[string]bool{}, notes: o.notes}
	o.subs = append(o.subs, c)
	return c
}

// list takes a field that is a list of objects.
func (o *object) list(name string) []*object {
	v := o.get(name)
	items, ok := v.([]any)
	if v != nil && !ok {
		o.notes.add(Todo, o.at(name), "is no list")
	}
	var out []*object
	for i, item := range items {
		m, ok := item.(map[string]any)
		path := fmt.Sprintf("%s[%d]", o.at(name), i)
		if !ok {
			o.notes.add(Todo, path, "is no object")
			continue
		}
		out = append(out, o.child(path, m))
	}
	return out
}

// skip takes fields that are of no concern, silently.
func (o *object) skip(names ...string) {
	for _, n := range names {
		o.get(n)
	}
}

// left notes fields that are there and have no counterpart.
func (o *object) left(why string, names ...string) {
	for _, n := range names {
		if o.get(n) != nil {
			o.notes.add(Left, o.at(n), why)
		}
	}
}

// rest notes all that nobody asked for, down to the last part.
func (o *object) rest() {
	for _, name := range slices.Sorted(maps.Keys(o.value)) {
		if !o.asked[name] && o.value[name] != nil {
			o.notes.add(Left, o.at(name), "is not known here; nothing was taken from it")
		}
	}
	for _, s := range o.subs {
		s.rest()
	}
}

// decode reads the documents of a file.
func decode(src []byte) ([]map[string]any, error) {
	if len(src) > largest {
		return nil, fmt.Errorf("the file is larger than %d bytes: %w", largest, fleet.ErrInvalid)
	}
	var out []map[string]any
	for d := yaml.NewDecoder(bytes.NewReader(src)); ; {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimPrefix(err.Error(), "yaml: "), fleet.ErrInvalid)
		}
		if v == nil {
			continue
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("document %d is no object: %w", len(out)+1, fleet.ErrInvalid)
		}
		if items, ok := m["items"].([]any); ok && m["kind"] == "List" { // as kubectl get -o yaml
			for _, item := range items {
				if one, ok := item.(map[string]any); ok {
					out = append(out, one)
				}
			}
		} else {
			out = append(out, m)
		}
		if len(out) > most {
			return nil, fmt.Errorf("the file has more than %d documents: %w", most, fleet.ErrInvalid)
		}
	}
}
