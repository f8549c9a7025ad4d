package replay

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/archive"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sandbox/fake"
	"muster.dev/muster/internal/store/memory"
)

var update = flag.Bool("update", false, "record the journal of the planner's present version anew")

// storeSource is the journal of a store.
type storeSource struct {
	fleet.Journal
	after int64
}

func (s *storeSource) Next(ctx context.Context) (fleet.DecisionRecord, error) {
	got, err := s.Decisions(ctx, fleet.DecisionFilter{After: s.after, Limit: 1})
	if err != nil {
		return fleet.DecisionRecord{}, err
	}
	if len(got) == 0 {
		return fleet.DecisionRecord{}, io.EOF
	}
	s.after = got[0].Seq
	return got[0], nil
}

// host is a machine with some slots.
type host struct{ slots int }

func (h host) List(context.Context) ([]fleet.Node, error) {
	return []fleet.Node{{ID: "local", State: fleet.NodeReady, MilliCPU: 64_000, MemoryBytes: 256 << 30, DiskBytes: 1 << 40, Slots: h.slots}}, nil
}
func (host) Scale(context.Context, int) error             { return fleet.ErrInvalid }
func (host) Cordon(context.Context, fleet.NodeID) error   { return nil }
func (host) Uncordon(context.Context, fleet.NodeID) error { return nil }
func (host) Release(context.Context, fleet.NodeID) error  { return nil }

func spec(min, most int, names ...string) control.Spec {
	s := control.Spec{Name: "test", Policy: plan.Policy{Min: min, Max: most}}
	for _, name := range names {
		s.Templates = append(s.Templates, fleet.Template{
			Name: name, Runtime: fleet.RuntimeFake, Image: "host", Revision: "r1",
			Resources: fleet.Resources{MilliCPU: 1000, MemoryBytes: 512 << 20, Pids: 64, DiskBytes: 1 << 20, Files: 64, LogBytes: 1 << 20},
			Timeouts:  fleet.Timeouts{Startup: time.Minute, Run: time.Hour, Queue: 24 * time.Hour},
		})
	}
	return s
}

// record runs a fleet for some minutes (bursts and quiet, starts that fail,
// another specification on the way) and returns the journal, exported.
func record(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		store := memory.New(memory.Options{})
		files, err := archive.Open(t.TempDir(), archive.Options{})
		if err != nil {
			t.Fatal(err)
		}
		boxes := fake.New(fake.Options{
			Lead: func(fleet.SandboxSpec) time.Duration { return 700 * time.Millisecond },
			Script: func(ctx context.Context, r *fake.Run) fleet.RunReport {
				r.Running()
				_ = r.Sleep(ctx, 3*time.Second)
				return fleet.RunReport{}
			},
		})
		engine, err := control.New(control.Config{
			Store: store, Queue: store.Queue(), Archive: files, Sandboxes: boxes, Nodes: host{12}, Spec: spec(2, 10, "default"),
			Clock: func() time.Time { return time.Now().In(time.FixedZone("far", -5*3600-1800)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- engine.Run(ctx) }()
		load(ctx, t, store, boxes, engine)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := export(&out, &storeSource{Journal: store}); err != nil {
			t.Error(err)
		}
		_ = boxes.Close()
		for _, s := range boxes.Specs() {
			_ = boxes.Reopen().Destroy(context.Background(), s.ID)
		}
		_ = store.Close()
		_ = files.Close()
	})
	return out.Bytes()
}

func load(ctx context.Context, t *testing.T, store *memory.Store, boxes *fake.Sandboxes, engine *control.Engine) {
	t.Helper()
	tp := spec(0, 0, "default").Templates[0]
	for i := range 30 {
		switch i {
		case 10:
			engine.SetSpec(spec(5, 8, "default"))
		case 20:
			boxes.Inject(fake.OpCreate, errors.New("no such image <x>"), 6)
		}
		tasks := make([]fleet.Task, i*7%6)
		for k := range tasks {
			tasks[k].Spec = fleet.TaskSpec{Tenant: "default", Template: "default", Pool: "default", Command: []string{"true"}, Image: "host", Resources: tp.Resources, Timeouts: tp.Timeouts}
		}
		if len(tasks) > 0 {
			if _, err := store.Submit(ctx, tasks); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
	}
	engine.SetSpec(spec(1, 8, "default"))
	time.Sleep(15 * time.Minute) // quiet: the surplus goes
	synctest.Wait()
}

// export writes a source as a file.
func export(to io.Writer, src Source) (Span, error) {
	w, err := NewWriter(to)
	if err != nil {
		return Span{}, err
	}
	ctx := context.Background()
	span, err := Each(ctx, src, Range{}, func(d *fleet.DecisionRecord) error { return w.Write(ctx, d, src) })
	if err != nil {
		return span, err
	}
	return span, w.Close()
}

func reader(t testing.TB, journal []byte) *Reader {
	t.Helper()
	r, err := NewReader(bytes.NewReader(journal))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestEngineIsReplayedBitForBit: what the loop decided of a living fleet, on a
// machine in another zone, comes out as it was.
func TestEngineIsReplayedBitForBit(t *testing.T) {
	journal := record(t)
	r, err := Check(t.Context(), reader(t, journal), Range{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Decisions < 50 || r.Same != r.Decisions || !r.Reproduced() {
		t.Errorf("%+v", r)
	}
	text := string(journal)
	for _, want := range []string{`"cause":"breaker"`, `"cause":"demand"`, `"kind":"drain"`, `"min":2`, `"min":5`} {
		if !strings.Contains(text, want) {
			t.Errorf("the journal has no %s: it shows too little", want)
		}
	}
}

// TestRecordedJournals replays what every version of the planner recorded. The
// present one must reproduce its own; an earlier one is reproduced, or the
// result says which version it was.
func TestRecordedJournals(t *testing.T) {
	present := filepath.Join("testdata", fmt.Sprintf("journal-v%d.jsonl.gz", plan.Version))
	if *update {
		writeRecording(t, present, record(t))
	}
	names, err := filepath.Glob(filepath.Join("testdata", "journal-v*.jsonl.gz"))
	if err != nil || !slices.Contains(names, present) {
		t.Fatalf("%s is missing; record it: go test ./internal/replay -run TestRecordedJournals -update", present)
	}
	for _, name := range names {
		r, err := Check(t.Context(), reader(t, readRecording(t, name)), Range{})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range r.Differences {
			if d.Version < plan.Version {
				continue
			}
			t.Fatalf("%s: decision %d comes out differently: %+v\nWhere the planner is meant to decide differently now: raise plan.Version when a release has decided with the present one, and record with: go test ./internal/replay -run TestRecordedJournals -update",
				name, d.Seq, d.Fields)
		}
		if r.Replayed == 0 {
			t.Errorf("%s: nothing was replayed", name)
		}
	}
}

func writeRecording(t *testing.T, name string, journal []byte) {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(journal); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, buf.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readRecording(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
