package v1alpha1

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"

	"muster.dev/muster/internal/fleet"
)

var anywhere = field{min: math.Inf(-1), max: math.Inf(1)}

// ParseFleet reads a file that holds one Fleet and returns it with every
// default filled in. All problems are told at once: the error joins a
// *fleet.FieldError for each, with the path and the line of the field.
func ParseFleet(src []byte) (*Fleet, error) {
	docs, err := parseDocuments(src)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, &fleet.FieldError{Field: "document", Wrong: fmt.Sprintf("the file has %d documents", len(docs)), Right: "one of kind Fleet"}
	}
	f, ok := docs[0].(*Fleet)
	if !ok {
		return nil, &fleet.FieldError{Field: "kind", Wrong: "is " + kindOf(docs[0]), Right: KindFleet}
	}
	f.Default()
	return f, nil
}

// ParseDocuments reads a file of one or more documents and returns a *Fleet,
// *Task or *Schedule for each, as written: defaults are not filled in, and a
// task's metadata is merged into its spec. All problems of all documents are
// told at once.
func ParseDocuments(src []byte) ([]any, error) {
	return parseDocuments(src)
}

// parseDocuments is the work of both: every document is decoded and
// validated, so that a misspelt field does not hide an impossible value.
func parseDocuments(src []byte) ([]any, error) {
	var ps problems
	nodes, err := readYAML(src, &ps)
	if err != nil {
		return nil, errors.Join(ps.err(), err)
	}
	if len(nodes) == 0 && len(ps.list) == 0 {
		return nil, &fleet.FieldError{Field: "document", Wrong: "is empty", Right: "a Fleet, Task or Schedule"}
	}
	var out []any
	for _, n := range nodes {
		// Problems are gathered document by document: the same path may be
		// wrong in several.
		var own problems
		if v := parseDocument(n, &own); v != nil {
			out = append(out, v)
		}
		own.locate(n, "")
		for _, f := range own.list {
			delete(ps.seen, f.Field)
			ps.add(f)
		}
		ps.more += own.more
	}
	if err := ps.err(); err != nil {
		return nil, err
	}
	return out, nil
}

func parseDocument(n *node, ps *problems) any {
	if n.kind != kindObject {
		ps.add(&fleet.FieldError{Field: "document", Line: n.line, Wrong: "is " + n.kind.String(), Right: "an object with apiVersion, kind, metadata and spec"})
		return nil
	}
	var k string
	if c := n.child("kind", ""); c != nil && c.kind == kindString {
		k = c.text
	}
	var v any
	switch k {
	case KindFleet:
		v = &Fleet{}
	case KindTask:
		v = &Task{}
	case KindSchedule:
		v = &Schedule{}
	case "":
		ps.addf("kind", list([]string{KindFleet, KindTask, KindSchedule}), "is missing")
		return nil
	default:
		right := list([]string{KindFleet, KindTask, KindSchedule})
		for _, known := range []string{KindFleet, KindTask, KindSchedule} {
			if strings.EqualFold(k, known) {
				right = known
			}
		}
		ps.addf("kind", right, "%q is unknown", clip(k))
		return nil
	}
	decoder{ps}.decode(n, reflect.ValueOf(v).Elem(), &place{}, anywhere)
	switch d := v.(type) {
	case *Fleet:
		d.validate(ps)
		if d.Spec.Nodes.Provider == ProviderKubernetes {
			d.validateInCluster(ps)
		}
	case *Task:
		d.validate(ps)
	case *Schedule:
		d.validate(ps)
	}
	return v
}

func kindOf(v any) string {
	switch v.(type) {
	case *Fleet:
		return KindFleet
	case *Task:
		return KindTask
	case *Schedule:
		return KindSchedule
	}
	return "unknown"
}

// DecodeJSON fills v, a pointer to one of this package's types, from strict
// JSON: unknown and repeated fields and wrong types are *fleet.FieldError,
// all told at once. It does not validate; see the Validate methods.
func DecodeJSON(src []byte, v any) error {
	var ps problems
	n, err := readJSON(src, &ps)
	if err != nil {
		return errors.Join(ps.err(), err)
	}
	decoder{&ps}.decode(n, reflect.ValueOf(v).Elem(), &place{}, anywhere)
	return ps.err()
}
