package v1alpha1

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"muster.dev/muster/internal/fleet"
)

// maxPatch bounds a patch, in bytes.
const maxPatch = 256 << 10

// Merge puts a patch into a fleet as Written has it. The patch is a piece of a
// Fleet: {"spec": {…}}. Objects are merged and null removes a field, as in RFC
// 7396; items of a list that all have names are merged by name, so that one
// template can be changed without the others; every other list is replaced. The
// result is not checked: see ParseFleet. Errors are a *fleet.FieldError of the
// patch.
func Merge(written, patch []byte) ([]byte, error) {
	if len(patch) > maxPatch {
		return nil, &fleet.FieldError{Field: "patch", Wrong: fmt.Sprintf("has %d bytes", len(patch)), Right: fmt.Sprintf("at most %d", maxPatch)}
	}
	change, err := tree(patch)
	if err != nil {
		return nil, &fleet.FieldError{Field: "patch", Wrong: "is no JSON: " + err.Error(), Right: `an object such as {"spec": {"capacity": {"sandboxes": {"min": 2}}}}`}
	}
	m := object(change)
	if len(m) != 1 || object(m["spec"]) == nil {
		return nil, &fleet.FieldError{Field: "patch", Wrong: "is not a piece of a fleet's spec", Right: `an object with the one field "spec", an object`}
	}
	before, err := tree(written)
	if err != nil {
		return nil, fmt.Errorf("read the fleet: %w: %w", fleet.ErrCorrupt, err)
	}
	return json.Marshal(merge(before, change))
}

// merge returns the value with the patch in it; neither is changed.
func merge(v, patch any) any {
	switch p := patch.(type) {
	case map[string]any:
		out := maps.Clone(object(v))
		if out == nil {
			out = map[string]any{}
		}
		for key, change := range p {
			if change == nil {
				delete(out, key)
				continue
			}
			out[key] = merge(out[key], change)
		}
		return out
	case []any:
		old, _ := v.([]any)
		if names(old) == nil || names(p) == nil {
			return p
		}
		return mergeNamed(old, p)
	}
	return patch
}

// mergeNamed merges items by their names; new ones come last.
func mergeNamed(old, patch []any) []any {
	out := slices.Clone(old)
	have := names(old)
	for i, name := range names(patch) {
		if at := slices.Index(have, name); at >= 0 {
			out[at] = merge(out[at], patch[i])
		} else {
			out = append(out, merge(nil, patch[i]))
		}
	}
	return out
}
