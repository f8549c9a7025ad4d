package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// reviseTimeout bounds the keeping of one revision.
const reviseTimeout = 10 * time.Second

// keepRevision puts a specification that is in force on record, unless it is
// there, and tells of the change. That it could not be kept stops no fleet.
// It returns the newest number; 0 when it could not be kept.
func (u *unit) keepRevision(ctx context.Context, r fleet.Revision) int64 {
	if len(r.Spec) == 0 {
		return 0 // a test's fleet, which nobody wrote
	}
	ctx, cancel := context.WithTimeout(ctx, reviseTimeout)
	defer cancel()
	r.At = time.Now()
	kept, added, err := u.store.AppendRevision(ctx, r)
	if err == nil && added && kept.Number > 1 {
		err = u.tellRevision(ctx, kept)
	}
	if err != nil {
		u.log.Error("a change of the fleet's specification is not on record", "author", r.Author, "error", err)
	}
	return kept.Number
}

func (u *unit) tellRevision(ctx context.Context, r fleet.Revision) error {
	before, err := u.store.Revision(ctx, r.Number-1)
	if err != nil {
		return err
	}
	changes, err := v1alpha1.Changes(before.Spec, r.Spec)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("revision %d by %s", r.Number, r.Author)
	if r.Note != "" {
		text += ", " + r.Note
	}
	text += ": " + v1alpha1.SummaryOf(changes)
	u.log.Info("the fleet's specification has changed", "revision", r.Number, "author", r.Author, "change", v1alpha1.SummaryOf(changes))
	_, err = u.store.AppendEvents(ctx, []fleet.Event{{
		At: r.At, Kind: "fleet_changed", Layer: "fleet", From: int(before.Number), To: int(r.Number), Reason: text,
	}})
	return err
}

// localAuthor is who started this process.
func localAuthor() string {
	name := fmt.Sprintf("user %d", os.Getuid())
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if by := os.Getenv("SUDO_USER"); by != "" && by != name {
		return by + " (as " + name + ")"
	}
	return name
}

// apiAuthor is who asked the API: all that have the token are one, but for what
// they say who they are.
func apiAuthor(by string) string {
	if by == "" {
		return "API token"
	}
	return by + " (API token)"
}
