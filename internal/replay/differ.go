package replay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Field is one that differs; its values are JSON, "" where it is absent.
type Field struct {
	Path     string `json:"path"` // pools[default].desired
	Recorded string `json:"recorded"`
	Replayed string `json:"replayed"`
}

// derived is the member that is made from the others, for people.
const derived = "sentence"

// differ lists where two plans, as JSON, differ, in order of their fields.
// Order of members and white space make no difference.
func differ(recorded, replayed []byte) ([]Field, error) {
	var was, is any
	for _, x := range []struct {
		from []byte
		to   *any
	}{{recorded, &was}, {replayed, &is}} {
		dec := json.NewDecoder(bytes.NewReader(x.from))
		dec.UseNumber() // bit for bit: no rounding on the way
		if err := dec.Decode(x.to); err != nil {
			return nil, fmt.Errorf("read a plan: %w", err)
		}
	}
	return walk(nil, "", was, is), nil
}

func walk(out []Field, path string, was, is any) []Field {
	switch a := was.(type) {
	case map[string]any:
		b, ok := is.(map[string]any)
		if !ok {
			break
		}
		both := maps.Clone(a)
		maps.Copy(both, b)
		for _, k := range slices.Sorted(maps.Keys(both)) {
			out = walk(out, strings.TrimPrefix(path+"."+k, "."), member(a, k), member(b, k))
		}
		return out
	case []any:
		b, ok := is.([]any)
		if !ok {
			break
		}
		for i := range max(len(a), len(b)) {
			out = walk(out, fmt.Sprintf("%s[%s]", path, name(a, b, i)), element(a, i), element(b, i))
		}
		return out
	}
	if x, y := text(was), text(is); x != y {
		out = append(out, Field{path, x, y})
	}
	return out
}

// absent is a member or element that is not there.
type absent struct{}

func member(m map[string]any, k string) any {
	if v, ok := m[k]; ok {
		return v
	}
	return absent{}
}

func element(s []any, i int) any {
	if i < len(s) {
		return s[i]
	}
	return absent{}
}

// name is how people know an element: a target by its pool, when both plans
// have the same there, else the index.
func name(a, b []any, i int) string {
	var names []string
	for _, s := range [][]any{a, b} {
		if m, ok := element(s, i).(map[string]any); ok && m["kind"] == nil {
			if pool, ok := m["pool"].(string); ok {
				names = append(names, pool)
			}
		}
	}
	if len(names) == 2 && names[0] == names[1] {
		return names[0]
	}
	return fmt.Sprint(i)
}

func text(v any) string {
	if v == (absent{}) {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// decided drops the fields that are only words about the others.
func decided(all []Field) []Field {
	return slices.DeleteFunc(slices.Clone(all), func(f Field) bool {
		return f.Path == derived || strings.HasSuffix(f.Path, "."+derived)
	})
}
