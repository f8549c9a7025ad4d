package v1alpha1

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// field is what decoding needs to know of a struct's field.
type field struct {
	index    int
	min, max float64
}

// shape is a struct type's fields by their JSON names.
type shape struct {
	fields map[string]field
	names  []string
}

var shapes sync.Map // reflect.Type → *shape; grows with the types alone

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{fields: map[string]field{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		s.fields[name] = field{index: i, min: bound(f, "minimum", math.Inf(-1)), max: bound(f, "maximum", math.Inf(1))}
		s.names = append(s.names, name)
	}
	shapes.Store(t, s)
	return s
}

func bound(f reflect.StructField, tag string, otherwise float64) float64 {
	if v, err := strconv.ParseFloat(f.Tag.Get(tag), 64); err == nil {
		return v
	}
	return otherwise
}

// decoder fills a Go value from a node; unknown fields and wrong types become
// problems and the rest is filled all the same.
type decoder struct{ problems *problems }

func (d decoder) wrong(n *node, p *place, right, wrong string, args ...any) {
	d.problems.add(&fleet.FieldError{Field: p.String(), Line: n.line, Wrong: fmt.Sprintf(wrong, args...), Right: right})
}

var (
	quantityType = reflect.TypeFor[Quantity]()
	rawType      = reflect.TypeFor[json.RawMessage]()
)

func (d decoder) decode(n *node, v reflect.Value, p *place, f field) {
	if n.kind == kindNull {
		return // as if it were not there
	}
	if v.Type() == quantityType {
		if n.kind != kindString && n.kind != kindNumber {
			d.wrong(n, p, "an amount such as 500m, 2 or 2Gi", "is %s", n.kind)
			return
		}
		v.SetString(n.text)
		return
	}
	if v.Type() == rawType {
		v.SetBytes(n.raw(nil))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		e := reflect.New(v.Type().Elem())
		d.decode(n, e.Elem(), p, f)
		v.Set(e)
	case reflect.Struct:
		d.decodeStruct(n, v, p)
	case reflect.Map:
		d.decodeMap(n, v, p)
	case reflect.Slice:
		d.decodeSlice(n, v, p)
	case reflect.String:
		d.decodeString(n, v, p)
	case reflect.Bool:
		if n.kind != kindBool {
			d.wrong(n, p, "true or false", "is %s", n.kind)
			return
		}
		v.SetBool(strings.EqualFold(n.text, "true"))
	case reflect.Int:
		d.decodeInt(n, v, p, f)
	case reflect.Float64:
		d.decodeFloat(n, v, p, f)
	default:
		d.wrong(n, p, "", "cannot be set")
	}
}

func (d decoder) decodeStruct(n *node, v reflect.Value, p *place) {
	if n.kind != kindObject {
		d.wrong(n, p, "an object with "+list(shapeOf(v.Type()).names), "is %s", n.kind)
		return
	}
	s := shapeOf(v.Type())
	for i, name := range n.keys {
		q := p.key(name)
		f, ok := s.fields[name]
		if !ok {
			if meant := suggest(name, v.Type()); meant != "" {
				d.wrong(n.items[i], &q, "", "is not a field of %s (did you mean %s?)", p.owner(), meant)
			} else {
				d.wrong(n.items[i], &q, "one of "+list(s.names), "is not a field of %s", p.owner())
			}
			continue
		}
		d.decode(n.items[i], v.Field(f.index), &q, f)
	}
}

// owner names what a field belongs to, for a message.
func (p *place) owner() string {
	if p.up == nil {
		return "the document"
	}
	return p.String()
}

func (d decoder) decodeMap(n *node, v reflect.Value, p *place) {
	if n.kind != kindObject {
		d.wrong(n, p, "an object of names and values", "is %s", n.kind)
		return
	}
	m := reflect.MakeMapWithSize(v.Type(), len(n.keys))
	for i, name := range n.keys {
		q := p.key(name)
		e := reflect.New(v.Type().Elem()).Elem()
		if n.items[i].kind == kindNull {
			d.wrong(n.items[i], &q, `a value; "" for an empty one`, "has no value")
			continue
		}
		d.decode(n.items[i], e, &q, field{min: math.Inf(-1), max: math.Inf(1)})
		m.SetMapIndex(reflect.ValueOf(name), e)
	}
	v.Set(m)
}

func (d decoder) decodeSlice(n *node, v reflect.Value, p *place) {
	if n.kind != kindList {
		d.wrong(n, p, "a list", "is %s", n.kind)
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.items), len(n.items))
	for i, item := range n.items {
		q := p.item(i)
		if item.kind == kindNull {
			d.wrong(item, &q, `a value; "" for an empty one`, "has no value")
			continue
		}
		d.decode(item, s.Index(i), &q, field{min: math.Inf(-1), max: math.Inf(1)})
	}
	v.Set(s)
}

func (d decoder) decodeString(n *node, v reflect.Value, p *place) {
	switch {
	case n.kind == kindString:
	case n.loose && (n.kind == kindNumber || n.kind == kindBool):
		// In YAML "command: [sleep, 1]" is what everybody writes.
	default:
		d.wrong(n, p, "a string", "is %s", n.kind)
		return
	}
	v.SetString(n.text)
}

func (d decoder) decodeInt(n *node, v reflect.Value, p *place, f field) {
	if n.kind != kindNumber {
		d.wrong(n, p, "a whole number"+within(f), "is %s", n.kind)
		return
	}
	i, err := strconv.ParseInt(n.text, 0, 64)
	if err != nil {
		x, ferr := strconv.ParseFloat(n.text, 64)
		if ferr != nil || x != math.Trunc(x) || math.Abs(x) > 1<<53 {
			d.wrong(n, p, "a whole number"+within(f), "%s is not a whole number", clip(n.text))
			return
		}
		i = int64(x)
	}
	if x := float64(i); x < f.min || x > f.max {
		d.wrong(n, p, "a whole number"+within(f), "%s is %s", clip(n.text), side(x, f))
		return
	}
	v.SetInt(i)
}

func (d decoder) decodeFloat(n *node, v reflect.Value, p *place, f field) {
	if n.kind != kindNumber {
		d.wrong(n, p, "a number"+within(f), "is %s", n.kind)
		return
	}
	x, err := strconv.ParseFloat(n.text, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		d.wrong(n, p, "a number"+within(f), "%s is not a finite number", clip(n.text))
		return
	}
	if x < f.min || x > f.max {
		d.wrong(n, p, "a number"+within(f), "%s is %s", clip(n.text), side(x, f))
		return
	}
	v.SetFloat(x)
}

func side(x float64, f field) string {
	switch {
	case x < 0 && f.min >= 0:
		return "negative"
	case x < f.min:
		return "too small"
	}
	return "too large"
}

func within(f field) string {
	num := func(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }
	lo, hi := !math.IsInf(f.min, 0), !math.IsInf(f.max, 0)
	switch {
	case lo && hi:
		return " from " + num(f.min) + " to " + num(f.max)
	case lo:
		return " of at least " + num(f.min)
	case hi:
		return " of at most " + num(f.max)
	}
	return ""
}
