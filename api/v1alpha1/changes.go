package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Changes lists what differs between two fleets as Written has them, with paths
// below spec, in their order. Items of lists are matched by their names where
// they have any, so that one more is not a change of all behind it.
func Changes(before, after []byte) ([]SpecChange, error) {
	a, err := tree(before)
	if err != nil {
		return nil, err
	}
	b, err := tree(after)
	if err != nil {
		return nil, err
	}
	out := comparison{}
	root := func(v any) (spec, rest any) {
		m, _ := v.(map[string]any)
		m = maps.Clone(m)
		spec = m["spec"]
		delete(m, "spec")
		return spec, m
	}
	oldSpec, oldRest := root(a)
	newSpec, newRest := root(b)
	out.compare("", oldRest, newRest)
	out.compare("", oldSpec, newSpec)
	return out, nil
}

type comparison []SpecChange

func (c *comparison) add(field, from, to string) {
	*c = append(*c, SpecChange{Field: field, From: from, To: to})
}

func (c *comparison) compare(field string, a, b any) {
	switch am, bm := object(a), object(b); {
	case am != nil && bm != nil, am != nil && b == nil && len(am) > 0, bm != nil && a == nil && len(bm) > 0:
		keys := slices.Collect(maps.Keys(am))
		keys = slices.AppendSeq(keys, maps.Keys(bm))
		slices.Sort(keys)
		for _, k := range slices.Compact(keys) {
			c.compare(sub(field, k), am[k], bm[k])
		}
		return
	}
	al, aok := a.([]any)
	bl, bok := b.([]any)
	if aok || bok {
		if an, bn := names(al), names(bl); (a == nil || an != nil) && (b == nil || bn != nil) {
			c.compareNamed(field, al, bl)
			return
		}
		if aok && bok && slices.ContainsFunc(append(slices.Clone(al), bl...), func(v any) bool { return object(v) != nil }) {
			for i := range max(len(al), len(bl)) {
				c.compare(at(field, i), item(al, i), item(bl, i))
			}
			return
		}
	}
	if from, to := whole(a), whole(b); from != to {
		c.add(field, short(a), short(b))
	}
}

// compareNamed compares lists whose items have names.
func (c *comparison) compareNamed(field string, a, b []any) {
	an, bn := names(a), names(b)
	var kept, now []string
	for i, name := range an {
		if !slices.Contains(bn, name) {
			c.add(at(field, i), clipped(name), unset)
			continue
		}
		kept = append(kept, name)
	}
	for i, name := range bn {
		if k := slices.Index(an, name); k >= 0 {
			now = append(now, name)
			c.compare(at(field, i), a[k], b[i])
			continue
		}
		c.add(at(field, i), unset, clipped(name))
	}
	if !slices.Equal(kept, now) {
		c.add(field, clipped(strings.Join(kept, ", ")), clipped(strings.Join(now, ", ")))
	}
}

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }

func item(l []any, i int) any {
	if i < len(l) {
		return l[i]
	}
	return nil
}

// names are those of the items; nil where one has none, or two have the same.
func names(l []any) []string {
	var out []string
	for _, v := range l {
		name, ok := object(v)["name"].(string)
		if !ok || slices.Contains(out, name) {
			return nil
		}
		out = append(out, name)
	}
	return out
}

func whole(v any) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// short is a value for people.
func short(v any) string {
	switch v := v.(type) {
	case nil:
		return unset
	case string:
		if v != "" && !strings.ContainsAny(v, " \t\r\n\";→") {
			return clipped(v)
		}
	}
	return clipped(whole(v))
}

func clipped(s string) string {
	if r := []rune(s); len(r) > longestValue {
		return string(r[:longestValue-1]) + "…"
	}
	return s
}

// SpecOf is the spec, as JSON, of a fleet as Written has it.
func SpecOf(written []byte) ([]byte, error) {
	var f struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(written, &f); err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	return f.Spec, nil
}
