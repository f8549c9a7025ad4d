package ledger

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/store/sqlite"
)

// The year that is measured: 10,000 tasks a day of 20 teams with 60 projects
// and 5 templates, on up to 60 nodes of 3 kinds.
const (
	yearDays  = 365
	dailyWork = 10_000
	teams     = 20
	projects  = 60
)

// writeYear fills a store with the books and tasks of a year.
func writeYear(b *testing.B, db *sqlite.DB, days int) time.Time {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	began := epoch.Truncate(24*time.Hour).AddDate(-1, 0, 0)
	kinds := []fleet.NodeKind{{Group: "agents", InstanceType: "m7i.4xlarge", Capacity: "on-demand"}, {Group: "agents", InstanceType: "m7i.4xlarge", Capacity: "spot"}, {Group: "large", InstanceType: "m7i.8xlarge", Capacity: "spot"}}
	seq := int64(0)
	for d := range days {
		day, whole := began.AddDate(0, 0, d), cost.NewBook()
		p := fleet.Posting{}
		for h := range 24 {
			from, book := day.Add(time.Duration(h)*time.Hour), cost.NewBook()
			for i := range dailyWork / 24 {
				project := r.IntN(projects)
				k := cost.Key{
					Cause: cost.CauseTask, Kind: kinds[r.IntN(3)], Pool: fleet.PoolKey(fmt.Sprint("template-", project%5)), Tenant: fleet.TenantID(fmt.Sprint("team-", project%teams)),
					Labels: cost.LabelsOf(map[string]string{"team": fmt.Sprint("team-", project%teams), "project": fmt.Sprint("project-", project)}, []string{"team", "project"}),
				}
				c := fleet.TaskCost{
					Task: fleet.NewTaskID(from.Add(time.Duration(i) * 8 * time.Second)), MicroUSD: 1000 + r.Int64N(900_000),
					Busy: time.Duration(60_000+r.Int64N(3_000_000)) * time.Millisecond, Outcome: fleet.TaskSucceeded,
				}
				p.Tasks = append(p.Tasks, c)
				book.Charge(k, cost.Entry{From: from, Node: fleet.NodeID(fmt.Sprintf("ip-10-0-%d-%d", d, r.IntN(60))), Cause: cost.CauseTask, Amount: cost.Micro(c.MicroUSD)})
				book.Spend(k, c.Busy)
				book.Settle(k, true)
				book.Use(k, cost.Micro(r.Int64N(c.MicroUSD)), cost.Micro(c.MicroUSD))
				book.Reported(k, fleet.ModelUse{Reports: 1, Priced: 1, MicroUSD: r.Int64N(3_000_000), InputTokens: r.Int64N(20_000), CacheReadTokens: r.Int64N(4_000_000), CacheWriteTokens: r.Int64N(200_000), OutputTokens: r.Int64N(60_000)})
			}
			for n := range 60 {
				for _, c := range []cost.Cause{cost.CauseHeadroom, cost.CauseWarm, cost.CauseSystem} {
					book.Charge(cost.Key{Cause: c, Kind: kinds[n%3]}, cost.Entry{From: from, Node: fleet.NodeID(fmt.Sprintf("ip-10-0-%d-%d", d, n)), Cause: c, Amount: cost.Micro(r.Int64N(90_000))})
				}
			}
			book.Add(cost.HourOf(from), cost.Hour{Nodes: 60 * 3_600_000, Busy: 5, Peak: 60})
			whole.Merge(book)
			p.Books = append(p.Books, fleet.Book{Span: fleet.BookHour, From: from, Content: book.Pack()})
		}
		p.Books = append(p.Books, fleet.Book{Span: fleet.BookDay, From: day, Content: whole.Encode()})
		seq++
		st := state{Began: began, Looked: day.AddDate(0, 0, 1)}
		var err error
		if p.State, err = json.Marshal(st); err != nil {
			b.Fatal(err)
		}
		p.Seq = seq
		if err := db.Post(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
	return began
}

// BenchmarkYear measures what a year of history takes on disk, and reports over
// it. The size is that of the ledger's part of the database.
func BenchmarkYear(b *testing.B) {
	path := filepath.Join(b.TempDir(), "muster.db")
	db, err := sqlite.Open(b.Context(), path, sqlite.Options{BackupEvery: -1})
	if err != nil {
		b.Fatal(err)
	}
	began := writeYear(b, db, yearDays)
	if err := db.Close(); err != nil { // moves the write-ahead log into the file
		b.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	if db, err = sqlite.Open(b.Context(), path, sqlite.Options{BackupEvery: -1}); err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	end := began.AddDate(0, 0, yearDays)
	s := New(Options{Store: db, Clock: func() time.Time { return end }})
	for _, q := range []fleet.CostQuery{
		{Since: began, By: "team", OffFrom: 20 * time.Hour, OffUntil: 7 * time.Hour, Fixed: 80}, {Since: began, By: "project"}, {Since: began, By: "node"}, {Since: began, By: "hour"},
		{Since: end.Add(-31 * 24 * time.Hour), By: "task"}, {Since: end.Add(-30*24*time.Hour - 5*time.Hour), By: "team"}, {Since: end.Add(-5 * time.Hour), By: "team"},
	} {
		b.Run(fmt.Sprintf("%s/%s", q.By, end.Sub(q.Since)), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Report(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(st.Size())/1e6, "MB")
		})
	}
	b.Run("focus/744h", func(b *testing.B) {
		for b.Loop() {
			if err := s.Focus(b.Context(), fleet.CostQuery{Since: end.Add(-31 * 24 * time.Hour)}, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
