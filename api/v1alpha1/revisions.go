package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// RevisionView is one specification that the fleet had.
type RevisionView struct {
	Number  int64        `json:"number" doc:"1 is the first"`
	At      time.Time    `json:"at"`
	Author  string       `json:"author" doc:"Who wrote it, as far as that is known"`
	Source  string       `json:"source" enum:"file,API,cluster"`
	Note    string       `json:"note,omitempty"`
	Summary string       `json:"summary" doc:"What changed, in one line"`
	Changes []SpecChange `json:"changes" doc:"What changed, field by field; empty for the first"`
}

// RevisionList is the answer of GET /v1/fleet/revisions, newest first.
type RevisionList struct {
	Revisions []RevisionView `json:"revisions"`
	Before    int64          `json:"before,omitempty" doc:"Ask with ?before= this for the next page; absent on the last"`
}

// RevisionDetail is the answer of GET /v1/fleet/revisions/{n}.
type RevisionDetail struct {
	RevisionView
	Spec json.RawMessage `json:"spec" doc:"The fleet as it was written, without defaults"`
	Diff string          `json:"diff" doc:"Unified, of the YAML, against the revision before"`
}

// RollbackRequest is the body of POST /v1/fleet/rollback.
type RollbackRequest struct {
	To     int    `json:"to,omitempty" doc:"Number of the revision to put in force; 0: the one before the newest"`
	By     string `json:"by,omitempty" doc:"Who asks, for people; at most 64 characters"`
	DryRun bool   `json:"dryRun,omitempty" doc:"Check, and show what would change"`
	Force  bool   `json:"force,omitempty" doc:"In a cluster: also where something else applies the object and may put its own back"`
}

// RollbackView is the answer of POST /v1/fleet/rollback.
type RollbackView struct {
	From     int64        `json:"from" doc:"The revision that was the newest"`
	To       int64        `json:"to"`
	Revision int64        `json:"revision,omitempty" doc:"Number of the new revision; absent with dryRun, and in a cluster, where it follows"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Summary  string       `json:"summary"`
	Changes  []SpecChange `json:"changes"`
	Diff     string       `json:"diff"`
	Awaits   []string     `json:"awaits,omitempty" doc:"Fields that only a new start takes over"`
	Kept     []string     `json:"kept,omitempty" doc:"Where the files that were replaced are"`
	Warnings []string     `json:"warnings,omitempty"`
}

// SpecChange is one field that two fleets differ in.
type SpecChange struct {
	Field string `json:"field"` // templates[0].min
	From  string `json:"from"`
	To    string `json:"to"`
}

// String is the change in one line.
func (c SpecChange) String() string { return c.Field + " " + c.From + " → " + c.To }

const (
	unset = "unset"
	// longestValue and longestSummary bound what is said in one line, in
	// characters.
	longestValue   = 60
	longestSummary = 240
)

// SummaryOf says changes in one line.
func SummaryOf(changes []SpecChange) string {
	var b strings.Builder
	for i, c := range changes {
		text := c.String()
		if b.Len() > 0 {
			text = "; " + text
		}
		if b.Len() > 0 && b.Len()+len(text) > longestSummary {
			fmt.Fprintf(&b, "; and %d more", len(changes)-i)
			break
		}
		b.WriteString(text)
	}
	return b.String()
}

// Written is the canonical JSON of a Fleet document as it was written: its keys
// sorted, nothing filled in, empty parts left out.
func Written(src []byte) ([]byte, error) {
	docs, err := parseDocuments(src)
	if err != nil {
		return nil, err
	}
	for _, d := range docs {
		if f, ok := d.(*Fleet); ok {
			return f.canonical()
		}
	}
	return nil, fmt.Errorf("the document is no %s", KindFleet)
}

// WrittenInCluster is the same of an object of a Kubernetes cluster, whose spec
// is JSON.
func WrittenInCluster(meta Metadata, spec []byte) ([]byte, error) {
	v, err := tree(spec)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"apiVersion": APIVersion, "kind": KindFleet,
		"metadata": map[string]any{"name": meta.Name, "namespace": meta.Namespace}, "spec": v,
	})
}

func (f *Fleet) canonical() ([]byte, error) {
	raw, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode the fleet: %w", err)
	}
	v, err := tree(raw)
	if err != nil {
		return nil, err
	}
	prune(v, reflect.TypeFor[Fleet]())
	return json.Marshal(v)
}

// tree reads JSON; numbers stay as they are written.
func tree(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read the fleet: %w", err)
	}
	return v, nil
}

// prune removes structs that nothing is set in; JSON's omitempty leaves them.
func prune(v any, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			prune(e, t.Elem())
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			inner, ok := v[name]
			if !ok {
				continue
			}
			prune(inner, f.Type)
			if m, is := inner.(map[string]any); is && len(m) == 0 && f.Type.Kind() == reflect.Struct {
				delete(v, name)
			}
		}
	}
}

// Takeover splits a change of the fleet from f, which runs, to g: live is g as
// far as it can be taken over while tasks run, awaits are the fields that take a
// new start. Both have their defaults.
func (f *Fleet) Takeover(g *Fleet) (live *Fleet, awaits []string) {
	if !f.MustBeRestarted(g) {
		return g, nil
	}
	out := *g
	from, to := reflect.ValueOf(&f.Spec).Elem(), reflect.ValueOf(&out.Spec).Elem()
	for i := range to.NumField() {
		one := *f
		reflect.ValueOf(&one.Spec).Elem().Field(i).Set(to.Field(i))
		if f.MustBeRestarted(&one) {
			name, _, _ := strings.Cut(to.Type().Field(i).Tag.Get("json"), ",")
			awaits = append(awaits, "spec."+name)
			to.Field(i).Set(from.Field(i))
		}
	}
	var ps problems
	if out.validate(&ps); ps.err() != nil {
		return f, awaits // one part does not go without the other
	}
	return &out, awaits
}
