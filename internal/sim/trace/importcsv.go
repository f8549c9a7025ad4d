package trace

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Record is a row on its way into a trace, with its class in words.
type Record struct {
	Row
	Class string
}

// Sort brings records into the order of a trace; what arrives at once keeps
// its order.
func Sort(records []Record) {
	slices.SortStableFunc(records, func(a, b Record) int { return cmp.Compare(a.Arrival, b.Arrival) })
}

// Columns says where a CSV file of others has what a trace needs: names from
// its header, or numbers from 1.
type Columns struct {
	Arrival  string
	Duration string // in seconds; or End, with Start or else Arrival
	Start    string
	End      string
	Class    string // empty: none
	// Layout is how times are written: "unix", "unixms", "rfc3339", or a
	// layout of package time. Zone is where times without one are meant.
	Layout string
	Zone   *time.Location
	// Header says whether the first line names the columns.
	Header bool
	Comma  rune
}

// columns are places in a line; -1: none.
type columns struct {
	arrival, duration, start, end, class int
	c                                    Columns
	name                                 string
}

// MaxImport bounds the rows an import holds to sort them.
const MaxImport = 50_000_000

// ImportCSV reads another CSV file, plain or gzip, in any order of rows; name
// is for errors. Wrong rows are refused with their line.
func ImportCSV(r io.Reader, name string, c Columns) ([]Record, error) {
	in := bufio.NewReaderSize(r, maxLine)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, &Error{Name: name, Text: "begins like gzip and is none: " + err.Error()}
		}
		in = bufio.NewReaderSize(z, maxLine)
	}
	lines := csv.NewReader(in)
	lines.ReuseRecord = true
	if c.Comma != 0 {
		lines.Comma = c.Comma
	}
	p, err := places(lines, name, c)
	if err != nil {
		return nil, err
	}
	var out []Record
	for {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, wrongCSV(name, err)
		}
		number, _ := lines.FieldPos(0)
		rec, err := p.record(line)
		if err != nil {
			return nil, &Error{Name: name, Line: number, Text: err.Error()}
		}
		if len(out) == MaxImport {
			return nil, &Error{Name: name, Line: number, Text: fmt.Sprintf("more than %d rows; import it in parts", MaxImport)}
		}
		out = append(out, rec)
	}
	if len(out) == 0 {
		return nil, &Error{Name: name, Text: "holds no row"}
	}
	Sort(out)
	return out, nil
}

func wrongCSV(name string, err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return &Error{Name: name, Line: p.Line, Text: p.Err.Error()}
	}
	return &Error{Name: name, Text: "cannot be read: " + err.Error()}
}

// places finds the columns, in the header where there is one.
func places(lines *csv.Reader, name string, c Columns) (*columns, error) {
	var header []string
	if c.Header {
		line, err := lines.Read()
		if errors.Is(err, io.EOF) {
			return nil, &Error{Name: name, Text: "holds no row"}
		}
		if err != nil {
			return nil, wrongCSV(name, err)
		}
		for _, h := range line {
			header = append(header, strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))
		}
	}
	p := &columns{c: c, name: name}
	for _, x := range []struct {
		at   *int
		want string
	}{{&p.arrival, c.Arrival}, {&p.duration, c.Duration}, {&p.start, c.Start}, {&p.end, c.End}, {&p.class, c.Class}} {
		*x.at = -1
		if x.want == "" {
			continue
		}
		if *x.at = slices.Index(header, x.want); *x.at >= 0 {
			continue
		}
		n, err := strconv.Atoi(x.want)
		if err != nil || n < 1 || c.Header && n > len(header) {
			return nil, &Error{Name: name, Line: 1, Text: fmt.Sprintf("has no column %q; it has %s", x.want, strings.Join(header, ", "))}
		}
		*x.at = n - 1
	}
	return p, nil
}

func (p *columns) record(line []string) (Record, error) {
	var r Record
	var err error
	if r.Arrival, err = p.time(line, p.arrival, "arrival"); err != nil {
		return r, err
	}
	if p.duration >= 0 {
		text, err := field(line, p.duration, "duration")
		if err != nil {
			return r, err
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || !(v <= longest) {
			return r, fmt.Errorf("duration %q is no number of seconds", text)
		}
		r.Duration = toMillis(v)
	} else {
		from := r.Arrival
		if p.start >= 0 {
			if from, err = p.time(line, p.start, "start"); err != nil {
				return r, err
			}
		}
		end, err := p.time(line, p.end, "end")
		if err != nil {
			return r, err
		}
		r.Duration = end - from
	}
	if r.Duration < 0 {
		return r, fmt.Errorf("the duration of %s s is negative", seconds(r.Duration))
	}
	if p.class >= 0 {
		r.Class, err = field(line, p.class, "class")
	}
	return r, err
}

func field(line []string, i int, what string) (string, error) {
	if i < 0 || i >= len(line) {
		return "", fmt.Errorf("has no column %d (%s)", i+1, what)
	}
	return strings.TrimSpace(line[i]), nil
}

// time reads a moment in milliseconds since the epoch.
func (p *columns) time(line []string, i int, what string) (int64, error) {
	text, err := field(line, i, what)
	if err != nil {
		return 0, err
	}
	switch p.c.Layout {
	case "", "unix", "unixms":
		v, err := strconv.ParseFloat(text, 64)
		if p.c.Layout == "unixms" {
			v /= 1000
		}
		if err != nil || !(v >= 0 && v <= latest) {
			return 0, fmt.Errorf("%s %q is no Unix time", what, text)
		}
		return toMillis(v), nil
	}
	layout, zone := p.c.Layout, p.c.Zone
	if layout == "rfc3339" {
		layout = time.RFC3339
	}
	if zone == nil {
		zone = time.UTC
	}
	t, err := time.ParseInLocation(layout, text, zone)
	if err != nil {
		return 0, fmt.Errorf("%s %q is no time written as %q", what, text, layout)
	}
	if t.Unix() < 0 || t.Unix() > latest {
		return 0, fmt.Errorf("%s %q is before 1970 or after 9999", what, text)
	}
	return t.UnixMilli(), nil
}
