package archivetest

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

// Subject is an archive under test.
type Subject struct {
	Archive fleet.Archive
	// Reopen closes the archive and opens it anew, as after a restart.
	Reopen func(testing.TB) Subject
	// Twin is another archive of the same content, as another process has it; nil
	// where there can be none.
	Twin fleet.Archive
}

// Factory makes an empty archive and cleans up after the test.
type Factory func(t testing.TB) Subject

// Run runs the suite.
func Run(t *testing.T, open Factory) {
	for _, tt := range []struct {
		name string
		run  func(*fixture)
	}{
		{"log", testLog},
		{"large record", testLarge},
		{"bad ids", testBadIDs},
		{"many at once", testMany},
		{"one log, many writers", testSameLog},
		{"watch", testWatch},
		{"watch from another process", testTwin},
		{"files", testFiles},
		{"names", testNames},
		{"a file is there whole or not at all", testBroken},
		{"seek", testSeek},
		{"a reader of what is replaced", testReplaced},
		{"remove", testRemove},
		{"reopen", testReopen},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			tt.run(&fixture{T: t, Subject: s, a: s.Archive})
		})
	}
	t.Run("model", func(t *testing.T) { checkModel(t, open(t)) })
}

type fixture struct {
	*testing.T
	Subject
	a fleet.Archive
}

var start = time.Date(2026, 11, 24, 9, 0, 0, 123, time.UTC)

func (f *fixture) id() fleet.TaskID { return fleet.NewTaskID(start) }

func rec(offset int64, data string) fleet.LogRecord {
	return fleet.LogRecord{Offset: offset, At: start, Stream: fleet.StreamStdout, Data: []byte(data)}
}

func (f *fixture) put(id fleet.TaskID, r fleet.LogRecord) {
	f.Helper()
	if err := f.a.AppendLog(id, 1, r); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) text(id fleet.TaskID, from int64) string {
	f.Helper()
	return read(f, f.a, id, from)
}

func read(t testing.TB, a fleet.Archive, id fleet.TaskID, from int64) string {
	t.Helper()
	var b strings.Builder
	at := from
	if err := a.ReadLog(id, 1, from, func(r fleet.LogRecord) error {
		if r.Offset != at {
			t.Errorf("record at %d, want %d", r.Offset, at)
		}
		at += int64(len(r.Data))
		b.Write(r.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (f *fixture) size(id fleet.TaskID) int64 {
	f.Helper()
	n, err := f.a.LogSize(id, 1)
	if err != nil {
		f.Fatal(err)
	}
	return n
}

func (f *fixture) is(err, want error, what string) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func testLog(f *fixture) {
	id := f.id()
	if f.size(id) != 0 || f.text(id, 0) != "" {
		f.Error("a log that does not exist is not empty")
	}
	f.put(id, rec(0, "hello "))
	f.put(id, fleet.LogRecord{Offset: 6, At: start.Add(time.Second), Stream: fleet.StreamStderr, Data: []byte("w\x00\xff\n")})
	f.put(id, rec(0, "hello "))         // seen
	f.put(id, rec(8, "\xff\nand more")) // half seen
	f.put(id, rec(18, ""))
	f.is(f.a.AppendLog(id, 1, rec(19, "gap")), fleet.ErrInvalid, "gap")
	f.is(f.a.AppendLog(id, 1, rec(-1, "gap")), fleet.ErrInvalid, "before the start")
	if got := f.text(id, 0); got != "hello w\x00\xff\nand more" || f.size(id) != 18 {
		f.Errorf("log %q, size %d", got, f.size(id))
	}
	if got := f.text(id, 4); got != "o w\x00\xff\nand more" {
		f.Errorf("from 4: %q", got)
	}
	if got := f.text(id, 99); got != "" {
		f.Errorf("from beyond the end: %q", got)
	}
	var recs []fleet.LogRecord
	if err := f.a.ReadLog(id, 1, 0, func(r fleet.LogRecord) error { recs = append(recs, r); return nil }); err != nil {
		f.Fatal(err)
	}
	if len(recs) != 3 || recs[1].Stream != fleet.StreamStderr || !recs[1].At.Equal(start.Add(time.Second)) {
		f.Errorf("records: %+v", recs)
	}
	stop := errors.New("enough")
	f.is(f.a.ReadLog(id, 1, 0, func(fleet.LogRecord) error { return stop }), stop, "reader's own error")
	if err := f.a.AppendLog(id, 2, rec(0, "second attempt")); err != nil {
		f.Fatal(err)
	}
	if f.size(id) != 18 {
		f.Error("attempts share a log")
	}
}

func testLarge(f *fixture) {
	id := f.id()
	big := strings.Repeat("0123456789", 300_000) // one line of 3 MB
	f.put(id, rec(0, big))
	f.put(id, rec(3_000_000, "end"))
	if got := f.text(id, 2_999_999); got != "9end" {
		f.Errorf("tail %q", got)
	}
	if f.text(id, 0) != big+"end" {
		f.Error("the line came back changed")
	}
}

func testBadIDs(f *fixture) {
	for _, bad := range []fleet.TaskID{"", "t1", "../../../etc/passwd", "t000000000000000000.."} {
		f.is(f.a.AppendLog(bad, 1, rec(0, "x")), fleet.ErrInvalid, "append to "+string(bad))
		_, err := f.a.LogSize(bad, 1)
		f.is(err, fleet.ErrInvalid, "size of "+string(bad))
		_, err = f.a.PutFile(bad, "patch", strings.NewReader("x"))
		f.is(err, fleet.ErrInvalid, "patch of "+string(bad))
		f.is(f.a.Remove(bad), fleet.ErrInvalid, "remove "+string(bad))
	}
	f.is(f.a.AppendLog(f.id(), -1, rec(0, "x")), fleet.ErrInvalid, "attempt -1")
}

func testMany(f *fixture) {
	ids := make([]fleet.TaskID, 40)
	var wg sync.WaitGroup
	for i := range ids {
		ids[i] = f.id()
		wg.Go(func() {
			for n := range 20 {
				if err := f.a.AppendLog(ids[i], 1, rec(int64(n), "x")); err != nil {
					f.Error(err)
				}
			}
			if err := f.a.EndLog(ids[i], 1); err != nil {
				f.Error(err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if f.text(id, 0) != strings.Repeat("x", 20) {
			f.Error("log differs")
		}
	}
}

// testSameLog: a runner that reconnects may find the one before still writing;
// both send the same bytes.
func testSameLog(f *fixture) {
	id, want := f.id(), strings.Repeat("0123456789", 100)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for at := 0; at < len(want); at += 25 {
				if err := f.a.AppendLog(id, 1, rec(int64(at), want[at:at+25])); err != nil {
					f.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.text(id, 0); got != want {
		f.Errorf("log of %d bytes: %.100q", len(got), got)
	}
}

func awake(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// soon waits for a wake-up that comes from another process.
func soon(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-time.After(10 * time.Second):
		return false
	}
}

func testWatch(f *fixture) {
	id := f.id()
	wake, release := f.a.WatchLog(id, 1)
	other, releaseOther := f.a.WatchLog(id, 2)
	defer releaseOther()
	f.put(id, rec(0, "x"))
	if !awake(wake) || awake(other) {
		f.Error("want a wake-up, of this attempt alone")
	}
	f.put(id, rec(1, "y"))
	f.put(id, rec(0, "xy"))
	if err := f.a.EndLog(id, 1); err != nil {
		f.Fatal(err)
	}
	if !awake(wake) {
		f.Error("not woken by the end")
	}
	release()
	release()
	for awake(wake) {
	}
	f.put(id, rec(2, "late")) // after the end: a repeat that came late
	if awake(wake) || f.text(id, 0) != "xylate" {
		f.Error("after release")
	}
	if err := f.a.EndLog(f.id(), 1); err != nil {
		f.Errorf("end of a log without a record: %v", err)
	}
}

func testTwin(f *fixture) {
	if f.Twin == nil {
		f.Skip("one process alone has this archive")
	}
	id := f.id()
	wake, release := f.Twin.WatchLog(id, 1)
	defer release()
	for at, b := range []byte("hello") {
		f.put(id, rec(int64(at), string(b)))
		for read(f, f.Twin, id, 0) != "hello"[:at+1] {
			if !soon(wake) {
				f.Fatalf("the twin has %q", read(f, f.Twin, id, 0))
			}
		}
	}
	for awake(wake) {
	}
	if err := f.a.EndLog(id, 1); err != nil {
		f.Fatal(err)
	}
	if !soon(wake) {
		f.Error("not woken by the end")
	}
	if _, err := f.Twin.PutFile(id, "patch", strings.NewReader("diff")); err != nil {
		f.Fatal(err)
	}
	if got := f.file(id, "patch"); got != "diff" {
		f.Errorf("patch of the twin: %q", got)
	}
}

func (f *fixture) file(id fleet.TaskID, name string) string {
	f.Helper()
	r, err := f.a.OpenFile(id, name)
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	return string(b)
}

// checkModel appends pieces with repeats and restarts, and reads from anywhere.
func checkModel(t *testing.T, s Subject) {
	rapid.Check(t, func(rt *rapid.T) {
		id, want := fleet.NewTaskID(start), []byte{}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				back := rapid.IntRange(0, min(len(want), 20_000)).Draw(rt, "back")
				data := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(rt, "data"), rapid.IntRange(0, 4000).Draw(rt, "times"))
				data = append(bytes.Clone(want[len(want)-back:]), data...)
				if err := s.Archive.AppendLog(id, 1, fleet.LogRecord{Offset: int64(len(want) - back), At: start, Stream: 1, Data: data}); err != nil {
					rt.Fatal(err)
				}
				want = append(want, data[back:]...)
			},
			"read": func(rt *rapid.T) {
				from := rapid.IntRange(0, len(want)).Draw(rt, "from")
				var got []byte
				if err := s.Archive.ReadLog(id, 1, int64(from), func(r fleet.LogRecord) error {
					if r.Offset != int64(from+len(got)) {
						rt.Fatalf("record at %d", r.Offset)
					}
					got = append(got, r.Data...)
					return nil
				}); err != nil || !bytes.Equal(got, want[from:]) {
					rt.Fatalf("from %d: %d bytes, want %d; %v", from, len(got), len(want)-from, err)
				}
			},
			"end": func(rt *rapid.T) {
				if err := s.Archive.EndLog(id, 1); err != nil {
					rt.Fatal(err)
				}
			},
			"restart": func(*rapid.T) { s = s.Reopen(t) },
			"": func(rt *rapid.T) {
				if n, err := s.Archive.LogSize(id, 1); err != nil || n != int64(len(want)) {
					rt.Fatalf("size %d, want %d; %v", n, len(want), err)
				}
			},
		})
	})
}
