package storetest

import (
	"time"

	"muster.dev/muster/internal/fleet"
)

func (f *fixture) post(p fleet.Posting) {
	f.Helper()
	if err := f.s.Post(f.ctx, p); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) books(span fleet.BookSpan, from, until time.Time) []fleet.Book {
	f.Helper()
	b, err := f.s.Books(f.ctx, span, from, until)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

func (f *fixture) ledgerIs(seq int64, state string) {
	f.Helper()
	got, b, err := f.s.LedgerState(f.ctx)
	if err != nil || got != seq || string(b) != state {
		f.Errorf("the ledger is at %d, %q, %v; want %d, %q", got, b, err, seq, state)
	}
}

func testLedger(f *fixture) {
	day := time.Now().UTC().Truncate(24 * time.Hour)
	id := func(at time.Duration) fleet.TaskID { return fleet.NewTaskID(day.Add(at)) }
	a, b, c := id(time.Hour), id(2*time.Hour), id(25*time.Hour)
	f.ledgerIs(0, "")
	if got := f.books(fleet.BookHour, time.Time{}, day.Add(time.Hour)); got == nil || len(got) != 0 {
		f.Errorf("books of an empty ledger: %v", got)
	}
	f.is(f.s.Post(f.ctx, fleet.Posting{Seq: 2}), fleet.ErrConflict, "a posting before the first")
	first := fleet.Posting{
		Seq: 1, State: []byte("s1"),
		Books: []fleet.Book{
			{Span: fleet.BookHour, From: day.Add(time.Hour), Content: []byte("h1")},
			{Span: fleet.BookHour, From: day.Add(2 * time.Hour), Content: []byte("h2")},
			{Span: fleet.BookDay, From: day, Content: []byte{0, 1, 255}},
		},
		Tasks: []fleet.TaskCost{{Task: a, MicroUSD: 5, Busy: 1500 * time.Millisecond}, {Task: b, MicroUSD: 9, Outcome: fleet.TaskSucceeded}, {Task: c, MicroUSD: 7, Outcome: fleet.TaskLost}},
	}
	f.post(first)
	f.is(f.s.Post(f.ctx, first), fleet.ErrConflict, "the same posting again")
	f.ledgerIs(1, "s1")
	// A posting that does not follow leaves nothing behind.
	f.is(f.s.Post(f.ctx, fleet.Posting{Seq: 3, Books: []fleet.Book{{Span: fleet.BookDay, From: day, Content: []byte("no")}}}), fleet.ErrConflict, "a posting that skips one")
	f.post(fleet.Posting{
		Seq: 2, State: []byte("s2"), Books: []fleet.Book{{Span: fleet.BookHour, From: day.Add(2 * time.Hour), Content: []byte("more")}},
		Tasks: []fleet.TaskCost{{Task: a, MicroUSD: 6, Busy: 2 * time.Second, Outcome: fleet.TaskFailed}},
	})
	check := func() {
		f.Helper()
		f.ledgerIs(2, "s2")
		f.same("hours", []fleet.Book{first.Books[0], {Span: fleet.BookHour, From: day.Add(2 * time.Hour), Content: []byte("more")}},
			f.books(fleet.BookHour, day, day.Add(3*time.Hour)))
		f.same("from one on, up to another", []fleet.Book{first.Books[0]}, f.books(fleet.BookHour, day.Add(time.Hour), day.Add(2*time.Hour)))
		f.same("days", first.Books[2:], f.books(fleet.BookDay, day, day.Add(time.Hour)))
		got, err := f.s.DearestTasks(f.ctx, day, day.Add(24*time.Hour), 10)
		if err != nil {
			f.Fatal(err)
		}
		f.same("dearest", []fleet.TaskCost{first.Tasks[1], {Task: a, MicroUSD: 6, Busy: 2 * time.Second, Outcome: fleet.TaskFailed}}, got)
		if got, err = f.s.DearestTasks(f.ctx, day, day.Add(48*time.Hour), 1); err != nil || len(got) != 1 || got[0].Task != b {
			f.Errorf("the dearest one: %v, %v", got, err)
		}
		if got, err = f.s.TaskCosts(f.ctx, []fleet.TaskID{c, fleet.NewTaskID(day)}); err != nil || len(got) != 1 || got[0] != first.Tasks[2] {
			f.Errorf("one task: %v, %v", got, err)
		}
	}
	check()
	if got, err := f.s.TaskCosts(f.ctx, nil); err != nil || got == nil || len(got) != 0 {
		f.Errorf("no tasks: %v, %v", got, err)
	}
	if f.Reopen != nil {
		f.Subject = f.Reopen(f)
		f.s = f.Subject.Store
		check()
	}
	if err := f.s.PruneLedger(f.ctx, day.Add(2*time.Hour)); err != nil {
		f.Fatal(err)
	}
	if got := f.books(fleet.BookHour, day, day.Add(9*time.Hour)); len(got) != 1 || !got[0].From.Equal(day.Add(2*time.Hour)) {
		f.Errorf("after pruning: %v", got)
	}
	got, err := f.s.TaskCosts(f.ctx, []fleet.TaskID{a, b, c})
	if err != nil || len(got) != 2 {
		f.Errorf("tasks after pruning: %v, %v", got, err)
	}
	f.ledgerIs(2, "s2")
}
