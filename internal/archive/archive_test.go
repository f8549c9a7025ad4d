package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
)

var start = time.Date(2026, 11, 24, 9, 0, 0, 123, time.UTC)

func open(t testing.TB, dir string, o Options) *Archive {
	t.Helper()
	a, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func rec(offset int64, data string) fleet.LogRecord {
	return fleet.LogRecord{Offset: offset, At: start, Stream: fleet.StreamStdout, Data: []byte(data)}
}

func put(t testing.TB, a *Archive, id fleet.TaskID, r fleet.LogRecord) {
	t.Helper()
	if err := a.AppendLog(id, 1, r); err != nil {
		t.Fatal(err)
	}
}

func text(t testing.TB, a *Archive, id fleet.TaskID, from int64) string {
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

func size(t testing.TB, a *Archive, id fleet.TaskID) int64 {
	t.Helper()
	n, err := a.LogSize(id, 1)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLog(t *testing.T) {
	a, id := open(t, t.TempDir(), Options{}), fleet.NewTaskID(start)
	if size(t, a, id) != 0 || text(t, a, id, 0) != "" {
		t.Error("a log that does not exist is not empty")
	}
	put(t, a, id, rec(0, "hello "))
	put(t, a, id, fleet.LogRecord{Offset: 6, At: start.Add(time.Second), Stream: fleet.StreamStderr, Data: []byte("w\x00\xff\n")})
	put(t, a, id, rec(0, "hello "))         // seen
	put(t, a, id, rec(8, "\xff\nand more")) // half seen
	put(t, a, id, rec(18, ""))
	if err := a.AppendLog(id, 1, rec(19, "gap")); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("gap: %v", err)
	}
	if got := text(t, a, id, 0); got != "hello w\x00\xff\nand more" || size(t, a, id) != 18 {
		t.Errorf("log %q, size %d", got, size(t, a, id))
	}
	if got := text(t, a, id, 4); got != "o w\x00\xff\nand more" {
		t.Errorf("from 4: %q", got)
	}
	if got := text(t, a, id, 99); got != "" {
		t.Errorf("from beyond the end: %q", got)
	}
	var recs []fleet.LogRecord
	if err := a.ReadLog(id, 1, 0, func(r fleet.LogRecord) error { recs = append(recs, r); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(recs) != 3 || recs[1].Stream != fleet.StreamStderr || !recs[1].At.Equal(start.Add(time.Second)) {
		t.Errorf("records: %+v", recs)
	}
	stop := errors.New("enough")
	if err := a.ReadLog(id, 1, 0, func(fleet.LogRecord) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("reader's own error: %v", err)
	}
	if err := a.AppendLog(id, 2, rec(0, "second attempt")); err != nil {
		t.Fatal(err)
	}
	if size(t, a, id) != 18 {
		t.Error("attempts share a log")
	}
	for _, bad := range []fleet.TaskID{"", "t1", "../../../etc/passwd", "t000000000000000000.."} {
		if err := a.AppendLog(bad, 1, rec(0, "x")); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("id %q: %v", bad, err)
		}
	}
}

func TestLogLargeRecord(t *testing.T) {
	a, id := open(t, t.TempDir(), Options{}), fleet.NewTaskID(start)
	big := strings.Repeat("0123456789", 300_000) // one line of 3 MB
	put(t, a, id, rec(0, big))
	put(t, a, id, rec(3_000_000, "end"))
	if got := text(t, a, id, 2_999_999); got != "9end" {
		t.Errorf("tail %q", got)
	}
	if text(t, a, id, 0) != big+"end" {
		t.Error("the line came back changed")
	}
}

// TestLogReopen cuts the file everywhere: what was whole before the cut is
// there, and appending goes on.
func TestLogReopen(t *testing.T) {
	dir, id := t.TempDir(), fleet.NewTaskID(start)
	a := open(t, dir, Options{})
	parts := []string{"first", "second\n", "third"}
	at := int64(0)
	for _, p := range parts {
		put(t, a, id, rec(at, p))
		at += int64(len(p))
	}
	path := filepath.Join(dir, logKey{id, 1}.path())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(t, dir, Options{})
		want, pos := "", len(magic)
		for _, p := range parts {
			if pos += headerSize + len(p); pos <= n {
				want += p
			}
		}
		if got := text(t, b, id, 0); got != want || size(t, b, id) != int64(len(want)) {
			t.Fatalf("cut at %d: %q, want %q", n, got, want)
		}
		put(t, b, id, rec(int64(len(want)), "tail"))
		if got := text(t, b, id, 0); got != want+"tail" {
			t.Fatalf("cut at %d, appended to: %q", n, got)
		}
		c := open(t, dir, Options{})
		if got := text(t, c, id, 0); got != want+"tail" {
			t.Fatalf("cut at %d, opened again: %q", n, got)
		}
	}
}

func TestLogDamage(t *testing.T) {
	dir, id := t.TempDir(), fleet.NewTaskID(start)
	a := open(t, dir, Options{})
	put(t, a, id, rec(0, "first"))
	put(t, a, id, rec(5, "second"))
	put(t, a, id, rec(11, "third"))
	path := filepath.Join(dir, logKey{id, 1}.path())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("second"))] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	got := ""
	err = open(t, dir, Options{}).ReadLog(id, 1, 0, func(r fleet.LogRecord) error { got += string(r.Data); return nil })
	if !errors.Is(err, fleet.ErrCorrupt) || got != "first" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("something else entirely"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir, Options{}).AppendLog(id, 1, rec(0, "x")); !errors.Is(err, fleet.ErrCorrupt) {
		t.Errorf("append to a file that is not a log: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "something else entirely" {
		t.Errorf("it was written over: %q, %v", b, err)
	}
}

func TestWatchLog(t *testing.T) {
	a, id := open(t, t.TempDir(), Options{}), fleet.NewTaskID(start)
	wake, release := a.WatchLog(id, 1)
	other, releaseOther := a.WatchLog(id, 2)
	defer releaseOther()
	awake := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	put(t, a, id, rec(0, "x"))
	put(t, a, id, rec(1, "y"))
	if !awake(wake) || awake(wake) || awake(other) {
		t.Error("want one wake-up, of this attempt alone")
	}
	put(t, a, id, rec(0, "xy"))
	if awake(wake) {
		t.Error("woken by nothing new")
	}
	if err := a.EndLog(id, 1); err != nil {
		t.Fatal(err)
	}
	if !awake(wake) {
		t.Error("not woken by the end")
	}
	release()
	release()
	put(t, a, id, rec(2, "late")) // after the end: a repeat that came late
	if awake(wake) || text(t, a, id, 0) != "xylate" {
		t.Error("after release")
	}
	if err := a.EndLog(fleet.NewTaskID(start), 1); err != nil {
		t.Errorf("end of a log without a record: %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	a, id := open(t, dir, Options{}), fleet.NewTaskID(start)
	read := func(name string) string {
		t.Helper()
		f, err := a.OpenFile(id, name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, name := range []string{"patch", "artifacts/a.txt", "artifacts/deep/er/ünï code", "artifacts/log.1"} {
		for _, content := range []string{"first", "replaced\x00"} {
			if n, err := a.PutFile(id, name, strings.NewReader(content)); err != nil || n != int64(len(content)) {
				t.Fatalf("%s: %d, %v", name, n, err)
			}
			if got := read(name); got != content {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	for _, bad := range []string{
		"", "log.1", "artifacts", "artifacts/", "artifacts/.", "artifacts/..", "artifacts/../patch", "artifacts/a/../../x", "/etc/passwd",
		"artifacts//x", "artifacts/x/", "artifacts/\x00", "patch/x", "../patch", "artifacts/" + strings.Repeat("x", 300), "artifacts/" + strings.Repeat("x/", 600) + "y",
		"artifacts/a.txt/b", "artifacts/deep",
	} {
		if _, err := a.PutFile(id, bad, strings.NewReader("x")); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("put %.40q: %v", bad, err)
		}
	}
	for _, absent := range []string{"artifacts/none", "artifacts/deep"} {
		if _, err := a.OpenFile(id, absent); !errors.Is(err, fleet.ErrNotFound) {
			t.Errorf("open %q: %v", absent, err)
		}
	}
	// A reader that fails half way changes nothing.
	broken := errors.New("connection lost")
	if _, err := a.PutFile(id, "patch", io.MultiReader(strings.NewReader("half"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("failing reader: %v", err)
	}
	if got := read("patch"); got != "replaced\x00" {
		t.Errorf("patch %q", got)
	}
	if left, err := os.ReadDir(filepath.Join(dir, tmpDir)); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// A symbolic link inside leads nowhere.
	if err := os.Symlink("/etc", filepath.Join(dir, taskDir(id), "artifacts", "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.OpenFile(id, "artifacts/link/passwd"); err == nil {
		t.Error("followed a link out of the archive")
	}
	if _, err := a.PutFile(id, "artifacts/link/x", strings.NewReader("x")); err == nil {
		t.Error("wrote through a link out of the archive")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	a, id, other := open(t, dir, Options{}), fleet.NewTaskID(start), fleet.NewTaskID(start)
	put(t, a, id, rec(0, "x"))
	put(t, a, other, rec(0, "y"))
	if _, err := a.PutFile(id, "artifacts/a/b", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	var all []fleet.TaskID
	if err := a.Tasks(func(id fleet.TaskID) error { all = append(all, id); return nil }); err != nil || len(all) != 2 {
		t.Errorf("tasks %v, %v", all, err)
	}
	for range 2 {
		if err := a.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if size(t, a, id) != 0 || size(t, a, other) != 1 {
		t.Error("sizes after the removal")
	}
	put(t, a, id, rec(0, "new"))
	if got := text(t, a, id, 0); got != "new" {
		t.Errorf("log after the removal: %q", got)
	}
	if err := a.Remove("../../x"); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("remove: %v", err)
	}
}

func TestBoundedFiles(t *testing.T) {
	a := open(t, t.TempDir(), Options{OpenFiles: 4})
	ids := make([]fleet.TaskID, 40)
	for i := range ids {
		ids[i] = fleet.NewTaskID(start)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			for i := range 20 {
				if err := a.AppendLog(id, 1, rec(int64(i), "x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	held := func() (files, logs int) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, l := range a.logs {
			if l.file != nil {
				files++
			}
		}
		return files, len(a.logs)
	}
	if files, _ := held(); files > 4 {
		t.Errorf("%d files are open", files)
	}
	for _, id := range ids {
		if text(t, a, id, 0) != strings.Repeat("x", 20) {
			t.Error("log differs")
		}
		if err := a.EndLog(id, 1); err != nil {
			t.Error(err)
		}
	}
	if files, logs := held(); files > 4 || logs > 4 {
		t.Errorf("after the end %d files are open and %d logs are held", files, logs)
	}
}

// TestLogProperty appends pieces with repeats and restarts, and reads from
// anywhere.
func TestLogProperty(t *testing.T) {
	base, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(base, strconv.Itoa(n))
		a, err := Open(dir, Options{OpenFiles: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = a.Close() }()
		id, want := fleet.NewTaskID(start), []byte{}
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				back := rapid.IntRange(0, min(len(want), 20_000)).Draw(t, "back")
				data := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "data"), rapid.IntRange(0, 2000).Draw(t, "times"))
				data = append(bytes.Clone(want[len(want)-back:]), data...)
				if err := a.AppendLog(id, 1, fleet.LogRecord{Offset: int64(len(want) - back), At: start, Stream: 1, Data: data}); err != nil {
					t.Fatal(err)
				}
				want = append(want, data[back:]...)
			},
			"read": func(t *rapid.T) {
				from := rapid.IntRange(0, len(want)).Draw(t, "from")
				var got []byte
				if err := a.ReadLog(id, 1, int64(from), func(r fleet.LogRecord) error {
					if r.Offset != int64(from+len(got)) {
						t.Fatalf("record at %d", r.Offset)
					}
					got = append(got, r.Data...)
					return nil
				}); err != nil || !bytes.Equal(got, want[from:]) {
					t.Fatalf("from %d: %d bytes, want %d; %v", from, len(got), len(want)-from, err)
				}
			},
			"end": func(t *rapid.T) {
				if err := a.EndLog(id, 1); err != nil {
					t.Fatal(err)
				}
			},
			"restart": func(t *rapid.T) {
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				if a, err = Open(dir, Options{OpenFiles: 2}); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if n, err := a.LogSize(id, 1); err != nil || n != int64(len(want)) {
					t.Fatalf("size %d, want %d; %v", n, len(want), err)
				}
			},
		})
	})
}

func TestMarksStayBounded(t *testing.T) {
	l := &logFile{every: 10}
	pos := int64(len(magic))
	for i := int64(0); i < 100_000; i++ {
		l.grown(pos, 7)
		pos = l.end
	}
	if len(l.marks) > mostMarks {
		t.Errorf("%d marks", len(l.marks))
	}
	for _, off := range []int64{0, 6, 7, 350_000, 699_999, 1 << 40} {
		m := l.before(off)
		if m.offset > off || m.pos != int64(len(magic))+m.offset/7*(7+headerSize) {
			t.Errorf("mark before %d: %+v", off, m)
		}
	}
}

// FuzzFrames reads arbitrary files: it must end, stay in bounds, and never
// return a record whose checksum is wrong.
func FuzzFrames(f *testing.F) {
	good := appendRecord(appendRecord(nil, start, 1, []byte("hello")), start, 2, []byte("world"))
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte("\xff\xff\xff\xff\x01aaaaaaaabbbb"))
	f.Add(bytes.Repeat([]byte{0}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr := newFrames(bytes.NewReader(b), 0, 0)
		var again []byte
		for {
			r, err := fr.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) && !errors.Is(err, errDamaged) {
					t.Fatal(err)
				}
				break
			}
			again = appendRecord(again, r.At, r.Stream, r.Data)
		}
		if !bytes.HasPrefix(b, again) || int64(len(again)) != fr.pos {
			t.Fatal("what was read is not what is there")
		}
	})
}

func BenchmarkAppendLog(b *testing.B) {
	a, id := open(b, b.TempDir(), Options{}), fleet.NewTaskID(start)
	line := []byte(strings.Repeat("x", 200))
	b.SetBytes(int64(len(line)))
	var at int64
	for b.Loop() {
		if err := a.AppendLog(id, 1, fleet.LogRecord{Offset: at, At: start, Stream: 1, Data: line}); err != nil {
			b.Fatal(err)
		}
		at += int64(len(line))
	}
}
