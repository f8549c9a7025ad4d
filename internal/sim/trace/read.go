package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
)

// maxLine bounds a line of a trace, in bytes.
const maxLine = 64 << 10

// MaxClasses bounds the distinct values of the class column where it is read.
const MaxClasses = 256

// Error is what is wrong with a trace.
type Error struct {
	Name string
	Line int // 0: the whole trace
	Text string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Name + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.Name, e.Line, e.Text)
}

// File is a trace on disk.
type File struct {
	Path string
	// Classes asks for the class column; nil leaves it unread, so that no
	// policy can see what in some traces is the outcome.
	Classes *Classes
	// Progress, when set, hears of the bytes read so far.
	Progress func(bytes int64)
}

// Classes collects the values of the class column in order of appearance. One
// value may be shared by streams that are read one after another.
type Classes struct {
	Names []string
	index map[string]int32
}

func (c *Classes) of(name []byte) (int32, bool) {
	if i, ok := c.index[string(name)]; ok {
		return i, true
	}
	if len(c.Names) >= MaxClasses {
		return 0, false
	}
	if c.index == nil {
		c.index = map[string]int32{}
	}
	i := int32(len(c.Names))
	c.Names = append(c.Names, string(name))
	c.index[string(name)] = i
	return i, true
}

// Open implements Source.
func (f File) Open() (Stream, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	var in io.Reader = file
	if f.Progress != nil {
		in = &counting{r: file, tell: f.Progress}
	}
	s, err := NewReader(in, f.Path, f.Classes)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	s.closer = file
	return s, nil
}

type counting struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

// Reader reads one trace, strictly and in bounded memory.
type Reader struct {
	in      *bufio.Reader
	closer  io.Closer
	name    string
	classes *Classes
	line    int
	last    int64
	rows    int
	failed  error
}

// NewReader reads a trace from r, which may be gzip by its first bytes; name
// is for errors. Classes may be nil.
func NewReader(r io.Reader, name string, classes *Classes) (*Reader, error) {
	in := bufio.NewReaderSize(r, maxLine)
	if magic, err := in.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, &Error{Name: name, Text: "begins like gzip and is none: " + err.Error()}
		}
		in = bufio.NewReaderSize(z, maxLine)
	}
	return &Reader{in: in, name: name, classes: classes, last: math.MinInt64}, nil
}

// Close closes what Open opened.
func (r *Reader) Close() error {
	if r.closer == nil {
		return nil
	}
	return r.closer.Close()
}

func (r *Reader) errorf(format string, a ...any) error {
	return &Error{Name: r.name, Line: r.line, Text: fmt.Sprintf(format, a...)}
}

// Next implements Stream. After an error it returns the same error.
func (r *Reader) Next() (Row, error) {
	if r.failed != nil {
		return Row{}, r.failed
	}
	row, err := r.next()
	r.failed = err
	return row, err
}

func (r *Reader) next() (Row, error) {
	for {
		line, err := r.readLine()
		if err != nil {
			return Row{}, err
		}
		if r.line == 1 {
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
			if isHeader(line) {
				continue
			}
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		row, err := r.parse(line)
		if err != nil {
			return Row{}, err
		}
		if row.Arrival < r.last {
			return Row{}, r.errorf("arrival %s is before the %s of the row above; rows must be sorted by arrival (sort -t, -k1,1n)",
				seconds(row.Arrival), seconds(r.last))
		}
		r.last = row.Arrival
		r.rows++
		return row, nil
	}
}

// readLine returns the next line without its end; it is valid until the next
// call.
func (r *Reader) readLine() ([]byte, error) {
	line, err := r.in.ReadSlice('\n')
	switch {
	case err == nil:
		r.line++
		return bytes.TrimRight(line, "\r\n"), nil
	case errors.Is(err, bufio.ErrBufferFull):
		r.line++
		return nil, r.errorf("longer than %d KiB: this is no row of a trace", maxLine>>10)
	case errors.Is(err, io.EOF) && len(line) > 0:
		r.line++
		return bytes.TrimRight(line, "\r"), nil
	case errors.Is(err, io.EOF) && r.rows == 0:
		return nil, &Error{Name: r.name, Text: "holds no row; want arrival_unix_seconds,duration_seconds[,class]"}
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	}
	return nil, &Error{Name: r.name, Line: r.line + 1, Text: "cannot be read: " + err.Error()}
}

// isHeader tells a line of column names, which only the first may be.
func isHeader(line []byte) bool {
	field, _, _ := bytes.Cut(line, []byte{','})
	return bytes.HasPrefix(bytes.ToLower(bytes.Trim(field, "\" ")), []byte("arrival"))
}

func (r *Reader) parse(line []byte) (Row, error) {
	first, rest, ok := bytes.Cut(line, []byte{','})
	if !ok {
		return Row{}, r.errorf("%s has no comma; want arrival_unix_seconds,duration_seconds[,class]", quoted(line))
	}
	second, class, _ := bytes.Cut(rest, []byte{','})
	if bytes.IndexByte(class, ',') >= 0 {
		return Row{}, r.errorf("%s has more than 3 columns; want arrival_unix_seconds,duration_seconds[,class]", quoted(line))
	}
	at, err := r.number("arrival_unix_seconds", first, latest)
	if err != nil {
		return Row{}, err
	}
	d, err := r.number("duration_seconds", second, longest)
	if err != nil {
		return Row{}, err
	}
	row := Row{Arrival: at, Duration: d}
	if r.classes != nil {
		row.Class, ok = r.classes.of(bytes.Trim(class, "\" "))
		if !ok {
			return Row{}, r.errorf("more than %d different classes: this column names no templates", MaxClasses)
		}
	}
	return row, nil
}

// number reads a count of seconds between 0 and most, in milliseconds.
func (r *Reader) number(column string, text []byte, most int64) (int64, error) {
	if n, ok := digits(text); ok && n <= most {
		return n * 1000, nil
	}
	text = bytes.Trim(text, "\" \t")
	v, err := strconv.ParseFloat(string(text), 64)
	switch {
	case err != nil || math.IsNaN(v):
		return 0, r.errorf("%s %s is no number of seconds", column, quoted(text))
	case v < 0:
		return 0, r.errorf("%s %s is negative", column, quoted(text))
	case v > float64(most):
		return 0, r.errorf("%s %s is too large; want seconds, at most %d", column, quoted(text), most)
	}
	return toMillis(v), nil
}

// digits reads a short whole number: almost every field of almost every trace.
func digits(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 12 {
		return 0, false
	}
	var n int64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// quoted shows what was read, shortened.
func quoted(b []byte) string {
	const most = 40
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "…"
	}
	return strconv.Quote(string(b))
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', -1, 64) }
