package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/ledger"
	"muster.dev/muster/internal/store/memory"
)

const day = 24 * time.Hour

// books opens a ledger that says so many days went by before today, which it
// goes on from.
func books(ctx context.Context, store *memory.Store, days int, nodes func(context.Context) ([]fleet.Node, error)) (*ledger.Service, error) {
	now := time.Now().UTC()
	if days > 0 {
		if err := remember(ctx, store, now.Truncate(day).AddDate(0, 0, -days), now.Truncate(time.Hour)); err != nil {
			return nil, err
		}
	}
	l := ledger.New(ledger.Options{Store: store, Nodes: nodes, Fleet: "crowd", Tariff: cost.Tariff{{PerHour: 400_000}}})
	return l, l.Prime(ctx)
}

// remember writes the books of [from, until): a fleet that grows over the
// months, works on weekdays, has no node on Sundays, and of which nobody knows
// what was in the third week.
func remember(ctx context.Context, store *memory.Store, from, until time.Time) error {
	seq := int64(0)
	for at := from; at.Before(until); at = at.Add(day) {
		if age := int(at.Sub(from) / day); age >= 14 && age < 21 {
			continue
		}
		whole := cost.NewBook()
		p := fleet.Posting{}
		for hour := at; hour.Before(at.Add(day)) && hour.Before(until); hour = hour.Add(time.Hour) {
			b := bookOf(hour, hour.Sub(from).Hours()/24)
			whole.Merge(b)
			p.Books = append(p.Books, fleet.Book{Span: fleet.BookHour, From: hour, Content: b.Pack()})
		}
		p.Books = append(p.Books, fleet.Book{Span: fleet.BookDay, From: at, Content: whole.Encode()})
		seq++
		p.Seq = seq
		var err error
		if p.State, err = json.Marshal(map[string]any{"began": from, "looked": later(at, until)}); err != nil {
			return err
		}
		if err := store.Post(ctx, p); err != nil {
			return fmt.Errorf("write the past: %w", err)
		}
	}
	return nil
}

// later is the end of a day, or of what is remembered.
func later(at, until time.Time) time.Time {
	if end := at.Add(day); end.Before(until) {
		return end
	}
	return until
}

// bookOf is one hour of it, so many days after the first.
func bookOf(at time.Time, age float64) *cost.Book {
	b := cost.NewBook()
	if at.Weekday() == time.Sunday {
		b.Add(cost.HourOf(at), cost.Hour{})
		return b
	}
	share := math.Exp(-math.Pow(float64(at.Hour())-13, 2) / 18) // of the day's peak, around 13:00
	if at.Weekday() == time.Saturday {
		share /= 6
	}
	tasks := 2 + (12+age/12)*share
	task := cost.Key{Cause: cost.CauseTask, Pool: "default", Tenant: "payments", Labels: cost.LabelsOf(map[string]string{"team": "payments"}, []string{"team"})}
	warm := cost.Key{Cause: cost.CauseWarm, Pool: "default"}
	nodes := int64(math.Ceil((tasks + 3) / slots))
	busy, waits := time.Duration(tasks*float64(time.Hour)), 3*time.Hour
	each := cost.Micro(nodes * 400_000 / 4)
	for key, parts := range map[cost.Key]cost.Micro{task: 3, warm: 1} {
		b.Charge(key, cost.Entry{From: at, Node: "n1", Cause: key.Cause, Amount: parts * each})
	}
	b.Spend(task, busy)
	b.Spend(warm, waits)
	for range int(tasks * 4) { // a quarter of an hour each
		b.Settle(task, true)
	}
	b.Add(cost.HourOf(at), cost.Hour{Nodes: nodes * time.Hour.Milliseconds(), Busy: busy.Milliseconds(), Peak: nodes + 1})
	return b
}
