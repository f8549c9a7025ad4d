package storetest

import (
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

func testRevisions(f *fixture) {
	if got, err := f.s.Revisions(f.ctx, fleet.RevisionFilter{}); err != nil || got == nil || len(got) != 0 {
		f.Fatalf("revisions of a new store: %v, %v", got, err)
	}
	_, _, err := f.s.AppendRevision(f.ctx, fleet.Revision{Author: "nobody"})
	f.is(err, fleet.ErrInvalid, "no specification")
	_, err = f.s.Revision(f.ctx, 1)
	f.is(err, fleet.ErrNotFound, "absent revision")
	add := func(spec string, want int64, isNew bool) fleet.Revision {
		f.Helper()
		in := fleet.Revision{Number: 99, At: time.Now().UTC(), Author: "Ünï \x00 <&>", Source: fleet.FromFile, Note: "n", Spec: []byte(spec)}
		got, added, err := f.s.AppendRevision(f.ctx, in)
		if err != nil || added != isNew || got.Number != want {
			f.Fatalf("append: revision %d, added %t, %v; want %d, %t", got.Number, added, err, want, isNew)
		}
		if isNew {
			in.Number = want
			f.same("appended", in, got)
		}
		in.Spec[0], got.Spec[1] = 'x', 'x' // what is kept is a copy
		time.Sleep(time.Minute)
		kept, err := f.s.Revision(f.ctx, want)
		if err != nil || string(kept.Spec) != spec {
			f.Fatalf("revision %d: %q, %v", want, kept.Spec, err)
		}
		return kept
	}
	large := `{"templates":"` + strings.Repeat("t", 100_000) + `"}`
	all := []fleet.Revision{add(`{"a":1}`, 1, true), add(`{"a":2}`, 2, true), add(large, 3, true), add(`{"a":1}`, 4, true)}
	again := add(`{"a":1}`, 4, false)
	f.same("the same again", all[3], again)
	list := func(fl fleet.RevisionFilter, want ...int) {
		f.Helper()
		got, err := f.s.Revisions(f.ctx, fl)
		if err != nil {
			f.Fatal(err)
		}
		exp := []fleet.Revision{}
		for _, i := range want {
			exp = append(exp, all[i])
		}
		f.same("revisions", exp, got)
	}
	check := func() {
		f.Helper()
		list(fleet.RevisionFilter{}, 3, 2, 1, 0)
		list(fleet.RevisionFilter{Limit: 2}, 3, 2)
		list(fleet.RevisionFilter{Before: 3, Limit: 1}, 1)
		list(fleet.RevisionFilter{Before: 1})
	}
	check()
	if f.Reopen != nil {
		s := f.Reopen(f.T)
		f.s, f.q = s.Store, s.Queue
		check()
		add(`{"a":1}`, 4, false)
	}
}
