package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// longestNote bounds why a fleet is changed, in bytes.
const longestNote = 200

func (s *Server) patchRoute(api huma.API) {
	op := operation(http.MethodPost, v1alpha1.RouteFleetPatch, "patchFleet", "Change the fleet's specification",
		http.StatusConflict, http.StatusUnprocessableEntity)
	op.Description = "The patch is put into the newest revision, checked as a whole fleet is, put in force as a rollback is, and kept as a revision with its author. With dryRun nothing is changed."
	handle(s, api, op, s.changeFleet)
	describeBody[v1alpha1.PatchRequest](api, v1alpha1.RouteFleetPatch, http.MethodPost)
}

func (s *Server) changeFleet(ctx context.Context, in *struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	RawBody     []byte `contentType:"application/json"`
}) (*body[v1alpha1.PatchView], error) {
	var ask v1alpha1.PatchRequest
	if err := decodeBody(in.ContentType, in.RawBody, &ask); err != nil {
		return nil, err
	}
	if err := checkPatch(&ask); err != nil {
		return nil, err
	}
	if s.Reviser == nil {
		return nil, refuse(http.StatusConflict, "this control plane cannot change its fleet")
	}
	last, err := s.Store.Revisions(ctx, fleet.RevisionFilter{Limit: 1})
	switch {
	case err != nil:
		return nil, err
	case len(last) == 0:
		return nil, refuse(http.StatusConflict, "no specification of this fleet is on record yet: there is nothing to change")
	case ask.From != 0 && int64(ask.From) != last[0].Number:
		return nil, refuse(http.StatusConflict, "the fleet has changed: revision %d is the newest, and the patch is for %d", last[0].Number, ask.From)
	}
	changed, err := v1alpha1.Merge(last[0].Spec, ask.Patch)
	if err != nil {
		return nil, inBody(err)
	}
	out := v1alpha1.PatchView{From: last[0].Number, DryRun: ask.DryRun}
	if out.Changes, out.Summary, err = changesOf(last[0].Spec, changed); err != nil {
		return nil, err
	}
	if len(out.Changes) == 0 {
		return nil, refuse(http.StatusConflict, "the patch changes nothing: the fleet is like that already")
	}
	if out.Diff, err = unified(last[0].Number, last[0].Number+1, last[0].Spec, changed); err != nil {
		return nil, err
	}
	done, err := s.Reviser.Rollback(ctx, Order{Revision: fleet.Revision{Spec: changed}, Note: ask.Note, By: ask.By, Dry: ask.DryRun, Force: ask.Force})
	if err != nil {
		return nil, err
	}
	out.Revision, out.Awaits, out.Kept, out.Warnings = done.Revision, done.Awaits, done.Kept, done.Warnings
	return reply(out), nil
}

func checkPatch(ask *v1alpha1.PatchRequest) error {
	if len(ask.Patch) == 0 {
		return &fleet.FieldError{Field: "body.patch", Wrong: "is missing", Right: `a piece of a fleet: {"spec": {…}}`}
	}
	if ask.From < 0 {
		return &fleet.FieldError{Field: "body.from", Wrong: fmt.Sprintf("%d is no revision", ask.From), Right: "the number of the newest revision, or 0 for whichever that is"}
	}
	if len(ask.Note) > longestNote || !utf8.ValidString(ask.Note) || strings.ContainsFunc(ask.Note, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return &fleet.FieldError{Field: "body.note", Wrong: "is no line of text", Right: fmt.Sprintf("at most %d bytes of printable characters", longestNote)}
	}
	return checkAuthor(ask.By)
}
