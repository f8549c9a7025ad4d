package main

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"muster.dev/muster/api/v1alpha1"
)

// generator makes structural schemas of Go types.
type generator struct {
	comments comments
	rules    map[string][]rule
	used     map[string]bool // of rules
	failed   []string
}

var quantity = reflect.TypeFor[v1alpha1.Quantity]()

// text are the kinds of text that the tag kube names.
var text = map[string]object{
	"duration": {"pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`, "maxLength": 64},
	"name":     {"pattern": `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`, "maxLength": 63},
	"object":   {"pattern": `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`, "maxLength": 253},
}

// listKeys are the lists whose elements have a name that no other has.
var listKeys = map[string]string{"spec.templates": "name", "spec.tenants": "name", "status.conditions": "type"}

// schema is that of a type. def is the value after defaulting, invalid where
// nothing is known; path names the field, with [] for elements.
func (g *generator) schema(t reflect.Type, def reflect.Value, path string) object {
	if t == quantity {
		return object{"x-kubernetes-int-or-string": true, "anyOf": []object{{"type": "integer"}, {"type": "string"}}, "maxLength": 64}
	}
	switch t.Kind() {
	case reflect.Pointer:
		if def.IsValid() && !def.IsNil() {
			return g.schema(t.Elem(), def.Elem(), path)
		}
		return g.schema(t.Elem(), reflect.Value{}, path)
	case reflect.Struct:
		return g.structure(t, def, path)
	case reflect.Slice:
		var element reflect.Value
		if def.IsValid() && def.Len() > 0 {
			element = def.Index(0)
		}
		items := g.schema(t.Elem(), element, path+"[]")
		delete(items, "default") // of what is not there
		s := object{"type": "array", "items": items}
		if key := listKeys[path]; key != "" {
			s["x-kubernetes-list-type"], s["x-kubernetes-list-map-keys"] = "map", []string{key}
		} else {
			s["x-kubernetes-list-type"] = "atomic"
		}
		return s
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.schema(t.Elem(), reflect.Value{}, path+"{}")}
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return object{"type": "integer", "format": "int32"}
	case reflect.Int64:
		return object{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return object{"type": "number"}
	}
	g.failed = append(g.failed, fmt.Sprintf("%s: no schema for %s", path, t))
	return object{}
}

func (g *generator) structure(t reflect.Type, def reflect.Value, path string) object {
	properties, required := object{}, []string{}
	whole := object{} // the default of the object itself
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		at := path + "." + name
		var d reflect.Value
		if def.IsValid() {
			d = def.Field(i)
		}
		s := g.schema(f.Type, d, at)
		g.constrain(s, f, at)
		if text := g.comments.field(t, f); text != "" {
			s["description"] = text
		}
		if v, ok := defaultOf(d, s, at); ok {
			s["default"] = v
			whole[name] = v
		}
		if options == "" {
			required = append(required, name)
		}
		properties[name] = s
	}
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	if len(whole) > 0 && len(required) == 0 {
		out["default"] = whole // whole, since rules see it as it is
	}
	if r := g.rules[t.Name()]; len(r) > 0 {
		if g.used == nil {
			g.used = map[string]bool{}
		}
		g.used[t.Name()] = true
		out["x-kubernetes-validations"] = validations(r)
	}
	return out
}

// defaultOf is a field's default: what Fleet.Default fills in, or the object of
// what it fills in inside.
func defaultOf(d reflect.Value, s object, path string) (any, bool) {
	inner := s["default"]
	delete(s, "default")
	if undefaulted[path] || !d.IsValid() {
		return nil, false
	}
	if d.Kind() == reflect.Struct {
		return inner, inner != nil
	}
	if d.IsZero() {
		return nil, false
	}
	switch d.Kind() {
	case reflect.String, reflect.Int, reflect.Float64, reflect.Bool:
		return d.Interface(), true
	}
	return nil, false
}

// constrain adds what the field's tags say.
func (g *generator) constrain(s object, f reflect.StructField, path string) {
	number := func(tag, key string) {
		text, ok := f.Tag.Lookup(tag)
		if !ok {
			return
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			s[key] = n
		} else if x, err := strconv.ParseFloat(text, 64); err == nil {
			s[key] = x
		} else {
			g.failed = append(g.failed, fmt.Sprintf("%s: %s %q is no number", path, tag, text))
		}
	}
	for _, tag := range []string{"minimum", "maximum", "minItems", "maxItems"} {
		number(tag, tag)
	}
	if list := f.Tag.Get("enum"); list != "" {
		s["enum"] = strings.Split(list, ",")
	}
	if format := f.Tag.Get("format"); format != "" {
		s["format"] = format
	}
	kind := f.Tag.Get("kube")
	if n, ok := strings.CutPrefix(kind, "text="); ok {
		most, err := strconv.Atoi(n)
		if err != nil {
			g.failed = append(g.failed, fmt.Sprintf("%s: kube:%q", path, kind))
		}
		s["maxLength"] = most
		return
	}
	if kind != "" && text[kind] == nil {
		g.failed = append(g.failed, fmt.Sprintf("%s: kube:%q is no kind of text", path, kind))
	}
	for k, v := range text[kind] {
		s[k] = v
	}
}

// left says what went wrong, or which rules are for types that are not there.
func (g *generator) left() error {
	for name := range g.rules {
		if !g.used[name] {
			g.failed = append(g.failed, "there are rules for type "+name+", which is not part of a Fleet")
		}
	}
	if len(g.failed) > 0 {
		return fmt.Errorf("%s", strings.Join(g.failed, "\n"))
	}
	return nil
}
