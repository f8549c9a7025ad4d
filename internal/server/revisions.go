package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/pmezard/go-difflib/difflib"
	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Reviser puts an earlier or a changed specification of the fleet in force.
type Reviser interface {
	// Rollback checks the revision as if it were new, and with Order.Dry that is
	// all. Else it is in force, or will be, once this returns without an error.
	// Errors wrap the kinds of package fleet: ErrInvalid with the fields, where
	// the specification does not hold any more; ErrConflict, in words, where
	// somebody else would undo it.
	Rollback(ctx context.Context, o Order) (Outcome, error)
}

// Order is what a Reviser is asked for.
type Order struct {
	Revision fleet.Revision // an earlier one; with Number 0 a changed one, of which only Spec is set
	Note     string         // why, for people
	By       string         // who asks; may be empty
	Dry      bool
	Force    bool // also where somebody else may undo it
}

// Outcome is what became of an Order.
type Outcome struct {
	Revision int64    // the new one's number; 0: not known yet
	Awaits   []string // fields that take a new start
	Kept     []string // where files are that were replaced
	Warnings []string
}

// StaleError says why a specification cannot be in force (any more).
type StaleError struct {
	Number int64 // 0: it is a changed one
	Err    error // joins a *fleet.FieldError for each problem
}

func (e *StaleError) Error() string {
	if e.Number == 0 {
		return fmt.Sprintf("the changed fleet is not valid: %v", e.Err)
	}
	return fmt.Sprintf("revision %d does not hold any more: %v", e.Number, e.Err)
}

// Unwrap gives the problems and their kind.
func (e *StaleError) Unwrap() []error { return []error{fleet.ErrInvalid, e.Err} }

// mostRevisions bounds a page.
const mostRevisions = 1000

// longestAuthor bounds what callers say who they are, in bytes.
const longestAuthor = 64

func (s *Server) revisionRoutes(api huma.API) {
	list := operation(http.MethodGet, v1alpha1.RouteRevisions, "listRevisions", "The specifications that the fleet had, newest first, with who changed what")
	handle(s, api, list, s.revisions)
	handle(s, api, operation(http.MethodGet, v1alpha1.RouteRevision, "getRevision", "One specification that the fleet had, and how it differs from the one before", http.StatusNotFound), s.revision)
	back := operation(http.MethodPost, v1alpha1.RouteRollback, "rollBack", "Put an earlier specification in force",
		http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity)
	back.Description = "It is checked as if it were new. On one machine it replaces the fleet's file, the old one is kept beside it, and what can be changed while tasks run is; awaits names what takes a new start. In a cluster it replaces the object's spec. With dryRun nothing is changed."
	handle(s, api, back, s.rollback)
	describeBody[v1alpha1.RollbackRequest](api, v1alpha1.RouteRollback, http.MethodPost)
	s.patchRoute(api)
}

func (s *Server) revisions(ctx context.Context, in *struct {
	Before int64 `query:"before" minimum:"0" doc:"With numbers less than this"`
	Limit  int   `query:"limit" minimum:"0" maximum:"1000" doc:"At most; 0 is 100"`
}) (*body[v1alpha1.RevisionList], error) {
	limit := min(cmp.Or(in.Limit, 100), mostRevisions)
	found, err := s.Store.Revisions(ctx, fleet.RevisionFilter{Before: in.Before, Limit: limit + 1})
	if err != nil {
		return nil, err
	}
	out := v1alpha1.RevisionList{Revisions: []v1alpha1.RevisionView{}}
	for i := range found[:min(limit, len(found))] {
		var before *fleet.Revision
		if i+1 < len(found) {
			before = &found[i+1]
		}
		v, err := revisionView(&found[i], before)
		if err != nil {
			return nil, err
		}
		out.Revisions = append(out.Revisions, v)
	}
	if len(found) > limit {
		out.Before = found[limit-1].Number
	}
	return reply(out), nil
}

// revisionView shows a revision; before is nil for the first.
func revisionView(r, before *fleet.Revision) (v1alpha1.RevisionView, error) {
	v := v1alpha1.RevisionView{
		Number: r.Number, At: r.At, Author: r.Author, Source: r.Source, Note: r.Note,
		Summary: "the first", Changes: []v1alpha1.SpecChange{},
	}
	if before == nil {
		return v, nil
	}
	var err error
	v.Changes, v.Summary, err = changesOf(before.Spec, r.Spec)
	return v, err
}

func changesOf(before, after []byte) ([]v1alpha1.SpecChange, string, error) {
	changes, err := v1alpha1.Changes(before, after)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", fleet.ErrCorrupt, err)
	}
	if changes == nil {
		changes = []v1alpha1.SpecChange{}
	}
	return changes, v1alpha1.SummaryOf(changes), nil
}

func (s *Server) revision(ctx context.Context, in *struct {
	N int64 `path:"n" minimum:"1" doc:"Its number"`
}) (*body[v1alpha1.RevisionDetail], error) {
	r, err := s.Store.Revision(ctx, in.N)
	if err != nil {
		return nil, missing(err, "revision", in.N)
	}
	var before *fleet.Revision
	var old []byte
	if in.N > 1 {
		b, err := s.Store.Revision(ctx, in.N-1)
		if err != nil {
			return nil, err
		}
		before, old = &b, b.Spec
	}
	v, err := revisionView(&r, before)
	if err != nil {
		return nil, err
	}
	diff, err := unified(in.N-1, in.N, old, r.Spec)
	if err != nil {
		return nil, err
	}
	return reply(v1alpha1.RevisionDetail{RevisionView: v, Spec: r.Spec, Diff: diff}), nil
}

// unified is the difference of two fleets as YAML; before is nil where there is
// none.
func unified(from, to int64, before, after []byte) (string, error) {
	var lines [2][]string
	for i, spec := range [][]byte{before, after} {
		if spec == nil {
			continue
		}
		text, err := yaml.JSONToYAML(spec)
		if err != nil {
			return "", fmt.Errorf("show a revision: %w: %w", fleet.ErrCorrupt, err)
		}
		lines[i] = strings.SplitAfter(strings.TrimSuffix(string(text), "\n"), "\n")
		lines[i][len(lines[i])-1] += "\n"
	}
	names := [2]string{fmt.Sprintf("revision %d", from), fmt.Sprintf("revision %d", to)}
	if before == nil {
		names[0] = "nothing"
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: lines[0], B: lines[1], FromFile: names[0], ToFile: names[1], Context: 3})
}

func (s *Server) rollback(ctx context.Context, in *struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte `contentType:"application/json"`
}) (*body[v1alpha1.RollbackView], error) {
	var ask v1alpha1.RollbackRequest
	if err := decodeBody(in.ContentType, in.RawBody, &ask); err != nil {
		return nil, err
	}
	if ask.To < 0 {
		return nil, &fleet.FieldError{Field: "body.to", Wrong: fmt.Sprintf("%d is no revision", ask.To), Right: "the number of a revision, or 0 for the one before the newest"}
	}
	if err := checkAuthor(ask.By); err != nil {
		return nil, err
	}
	if s.Reviser == nil {
		return nil, refuse(http.StatusConflict, "this control plane cannot change its fleet")
	}
	newest, target, err := s.rollbackTarget(ctx, int64(ask.To))
	if err != nil {
		return nil, err
	}
	out := v1alpha1.RollbackView{From: newest.Number, To: target.Number, DryRun: ask.DryRun}
	if out.Changes, out.Summary, err = changesOf(newest.Spec, target.Spec); err != nil {
		return nil, err
	}
	if out.Diff, err = unified(newest.Number, target.Number, newest.Spec, target.Spec); err != nil {
		return nil, err
	}
	done, err := s.Reviser.Rollback(ctx, Order{Revision: target, Note: fmt.Sprintf("rollback to %d", target.Number), By: ask.By, Dry: ask.DryRun, Force: ask.Force})
	if err != nil {
		return nil, err
	}
	out.Revision, out.Awaits, out.Kept, out.Warnings = done.Revision, done.Awaits, done.Kept, done.Warnings
	return reply(out), nil
}

// checkAuthor refuses what is no name; empty is nobody's.
func checkAuthor(by string) error {
	if len(by) > longestAuthor || !utf8.ValidString(by) || strings.ContainsFunc(by, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return &fleet.FieldError{Field: "body.by", Wrong: "is no name", Right: fmt.Sprintf("at most %d printable characters", longestAuthor)}
	}
	return nil
}

// rollbackTarget finds the newest revision and the one to go back to.
func (s *Server) rollbackTarget(ctx context.Context, to int64) (newest, target fleet.Revision, err error) {
	last, err := s.Store.Revisions(ctx, fleet.RevisionFilter{Limit: 1})
	switch {
	case err != nil:
		return newest, target, err
	case len(last) == 0:
		return newest, target, refuse(http.StatusConflict, "no specification of this fleet is on record yet: there is nothing to roll back to")
	}
	newest = last[0]
	if to == 0 {
		if newest.Number == 1 {
			return newest, target, refuse(http.StatusConflict, "the fleet has had one specification only: there is nothing to roll back to")
		}
		to = newest.Number - 1
	}
	if target, err = s.Store.Revision(ctx, to); err != nil {
		if errors.Is(err, fleet.ErrNotFound) {
			err = fmt.Errorf("there is no revision %d; there are 1 to %d: %w", to, newest.Number, fleet.ErrNotFound)
		}
		return newest, target, err
	}
	if to != newest.Number && string(target.Spec) == string(newest.Spec) {
		return newest, target, refuse(http.StatusConflict, "revision %d is the same as revision %d, which is the newest", to, newest.Number)
	}
	if to == newest.Number {
		return newest, target, refuse(http.StatusConflict, "revision %d is the newest: there is nothing to roll back", to)
	}
	return newest, target, nil
}
