package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// read takes all rows of a text.
func read(text string, classes *Classes) (Rows, error) {
	r, err := NewReader(strings.NewReader(text), "t.csv", classes)
	if err != nil {
		return nil, err
	}
	return drain(r)
}

func drain(s Stream) (rows Rows, err error) {
	for {
		r, err := s.Next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows = append(rows, r)
	}
}

func TestReadAcceptsWhatIsMeant(t *testing.T) {
	for name, text := range map[string]string{
		"header":    Header + "\n100,2.5,a\n100,0,b\n",
		"no header": "100,2.5\n100,0\n",
		"CRLF, BOM": "\xef\xbb\xbfarrival_unix_seconds,duration_seconds\r\n100,2.5\r\n100,0",
		"quotes":    "\"arrival_unix_seconds\",x\n\"100\",\"2.5\",\"a\"\n\n1e2, 0\n",
	} {
		rows, err := read(text, nil)
		if want := (Rows{{Arrival: 100_000, Duration: 2500}, {Arrival: 100_000}}); err != nil || !slices.Equal(rows, want) {
			t.Errorf("%s: %v, %v", name, rows, err)
		}
	}
}

func TestReadRefusesWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "t.csv: holds no row",
		Header + "\n":                         "t.csv: holds no row",
		"\n\n":                                "t.csv: holds no row",
		Header + "\n1,2,c\n3\n":               `t.csv:3: "3" has no comma`,
		"1,2\n" + Header + "\n":               `t.csv:2: arrival_unix_seconds "arrival_unix_seconds" is no number`,
		"time,length\n1,2\n":                  `t.csv:1: arrival_unix_seconds "time" is no number of seconds`,
		"1,2\n5,1\n4,1\n":                     "t.csv:3: arrival 4 is before the 5 of the row above; rows must be sorted",
		"1,-2\n":                              `t.csv:1: duration_seconds "-2" is negative`,
		"-1,2\n":                              `t.csv:1: arrival_unix_seconds "-1" is negative`,
		"1,NaN\n":                             `"NaN" is no number`,
		"1,Inf\n":                             `"Inf" is too large`,
		"1,1e300\n":                           "is too large",
		"999999999999,1\n":                    "t.csv:1: arrival_unix_seconds \"999999999999\" is too large",
		"1,2,a,b\n":                           "t.csv:1: \"1,2,a,b\" has more than 3 columns",
		"1,\n":                                `duration_seconds "" is no number`,
		strings.Repeat("1", 70_000) + ",2":    "t.csv:1: longer than 64 KiB",
		"\x1f\x8bnonsense":                    "t.csv: begins like gzip and is none",
		"1,2\n" + strings.Repeat("x", 70_000): "t.csv:2: longer than 64 KiB",
	} {
		rows, err := read(text, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, %v; want %q", text, rows, err, want)
		}
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.30q: %T", text, err)
		}
	}
}

func TestTruncatedGzip(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 10_000 {
		_, _ = io.WriteString(z, "100,2\n")
	}
	_ = z.Close()
	r, err := NewReader(bytes.NewReader(b.Bytes()[:b.Len()/2]), "t.gz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = drain(r); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("a file cut in half: %v", err)
	}
	if _, again := r.Next(); !errors.Is(again, err) {
		t.Errorf("the error does not stay: %v", again)
	}
}

func TestClassesAreReadOnRequest(t *testing.T) {
	var c Classes
	rows, err := read("1,1,b\n2,1,a\n3,1,b\n", &c)
	if err != nil || !slices.Equal(c.Names, []string{"b", "a"}) || rows[2].Class != 0 || rows[1].Class != 1 {
		t.Errorf("%v %v %v", rows, c.Names, err)
	}
	var many strings.Builder
	for i := range MaxClasses + 1 {
		many.WriteString("1,1," + strings.Repeat("x", i+1) + "\n")
	}
	if _, err = read(many.String(), &Classes{}); err == nil || !strings.Contains(err.Error(), ":257: more than 256 different classes") {
		t.Errorf("got %v", err)
	}
}

func TestSelect(t *testing.T) {
	rows := Rows{{Arrival: 1000, Duration: 5}, {Arrival: 2000, Duration: 900}, {Arrival: 3000, Duration: 5}, {Arrival: 4000, Duration: 5}}
	s, err := Select(rows, Selection{From: Time(2000), To: Time(4000), MaxDuration: 800 * time.Millisecond}).Open()
	if err != nil {
		t.Fatal(err)
	}
	got, err := drain(s)
	if err != nil || !slices.Equal(got, rows[2:3]) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestMultiply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rows Rows
		at := int64(0)
		for range rapid.IntRange(0, 30).Draw(t, "rows") {
			at += rapid.Int64Range(0, 5000).Draw(t, "gap")
			rows = append(rows, Row{Arrival: at, Duration: rapid.Int64Range(0, 10).Draw(t, "d")})
		}
		s := Scale{
			Copies: rapid.IntRange(0, 5).Draw(t, "copies"), Seed: rapid.Uint64().Draw(t, "seed"),
			Jitter: time.Duration(rapid.IntRange(0, 20_000).Draw(t, "jitter")) * time.Millisecond,
		}
		all := func() Rows {
			m, err := Multiply(rows, s)
			if err != nil {
				t.Fatal(err)
			}
			in, err := m.Open()
			if err != nil {
				t.Fatal(err)
			}
			out, err := drain(in)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		got := all()
		if len(got) != len(rows)*max(1, s.Copies) || !slices.Equal(got, all()) {
			t.Fatalf("%d rows of %d; again the same: %v", len(got), len(rows), slices.Equal(got, all()))
		}
		var late, work int64
		for i, r := range got {
			if i > 0 && r.Arrival < got[i-1].Arrival {
				t.Fatalf("row %d is not in order", i)
			}
			late, work = late+r.Arrival, work+r.Duration
		}
		for _, r := range rows {
			late, work = late-int64(max(1, s.Copies))*r.Arrival, work-int64(max(1, s.Copies))*r.Duration
		}
		// Copy k is late by less than k jitters.
		k := int64(max(1, s.Copies))
		if work != 0 || late < 0 || late > int64(len(rows))*k*(k-1)/2*s.Jitter.Milliseconds() {
			t.Fatalf("work changed by %d, arrivals by %d in all", work, late)
		}
	})
	for _, s := range []Scale{{Copies: -1}, {Copies: MaxCopies + 1}, {Jitter: -1}} {
		if _, err := Multiply(Rows{}, s); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
}

func TestWriteAndReadBack(t *testing.T) {
	for _, zip := range []bool{false, true} {
		var b bytes.Buffer
		w, err := NewWriter(&b, zip)
		if err != nil {
			t.Fatal(err)
		}
		rows := Rows{{Arrival: 1500, Duration: 1}, {Arrival: 2000, Duration: 60_000}}
		for _, r := range rows {
			if err := w.Write(r, "a,\"b\n"); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Write(rows[0], ""); err == nil {
			t.Error("a row out of order is written")
		}
		if err := w.Close(); err != nil || w.Rows() != 2 {
			t.Fatal(err, w.Rows())
		}
		path := filepath.Join(t.TempDir(), "x.csv")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		read := int64(0)
		got, whole, err := Load(File{Path: path, Progress: func(n int64) { read = n }}, 10)
		if err != nil || !whole || !slices.Equal(got, rows) || read != int64(b.Len()) {
			t.Errorf("got %v, %v; %d bytes read", got, err, read)
		}
		if got, whole, err = Load(File{Path: path}, 1); got != nil || whole || err != nil {
			t.Errorf("more than wanted: %v %v %v", got, whole, err)
		}
	}
	if _, err := (File{Path: "nowhere.csv"}).Open(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// endless is a trace of n rows without the memory for them.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	k := 0
	for e.n > 0 && len(p)-k >= 16 {
		k += copy(p[k:], "1700000000,60,x\n")
		e.n--
	}
	if k == 0 {
		return 0, io.EOF
	}
	return k, nil
}

// TestReadingIsFlat: a hundred thousand rows more cost nothing more.
func TestReadingIsFlat(t *testing.T) {
	allocs := testing.AllocsPerRun(3, func() {
		r, err := NewReader(&endless{100_000}, "t", &Classes{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	})
	if allocs > 50 {
		t.Errorf("%v allocations for 100,000 rows", allocs)
	}
}

func BenchmarkRead(b *testing.B) {
	const rows = 1_000_000
	for b.Loop() {
		r, err := NewReader(&endless{rows}, "t", nil)
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// FuzzReader: whatever comes, rows are sorted and in range, and an error is an
// *Error.
func FuzzReader(f *testing.F) {
	for _, s := range []string{Header + "\n1,2,c\n", "1,2\n1.5,0\n", "1,-1", "\x1f\x8b\x08", "\"1\",\"2\",\"x,y\"\n", "1e3,1e-3\n\n", "1,2,\n2,,"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b), "f", &Classes{})
		last := int64(0)
		for err == nil {
			var row Row
			if row, err = r.Next(); err != nil {
				break
			}
			if row.Arrival < last || row.Arrival > latest*1000 || row.Duration < 0 || row.Duration > longest*1000 || row.Class < 0 || row.Class >= MaxClasses {
				t.Fatalf("row %+v after %d", row, last)
			}
			last = row.Arrival
		}
		var e *Error
		if !errors.Is(err, io.EOF) && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}
