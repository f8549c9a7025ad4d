package trace

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"strconv"
)

// Header is the first line of a trace.
const Header = "arrival_unix_seconds,duration_seconds,class"

// Writer writes a trace. Close it, so that all is written.
type Writer struct {
	w    *bufio.Writer
	z    *gzip.Writer
	line []byte
	last int64
	n    int
}

// NewWriter writes to w, through gzip when asked; it does not close w.
func NewWriter(w io.Writer, zip bool) (*Writer, error) {
	out := &Writer{}
	if zip {
		out.z = gzip.NewWriter(w)
		w = out.z
	}
	out.w = bufio.NewWriter(w)
	_, err := out.w.WriteString(Header + "\n")
	return out, err
}

// Write appends a row; rows come sorted by arrival.
func (w *Writer) Write(r Row, class string) error {
	if w.n > 0 && r.Arrival < w.last {
		return fmt.Errorf("row %d arrives before the one above", w.n+1)
	}
	if r.Arrival < 0 || r.Duration < 0 {
		return fmt.Errorf("row %d has a negative arrival or duration", w.n+1)
	}
	w.last = r.Arrival
	w.n++
	w.line = append(appendSeconds(w.line[:0], r.Arrival), ',')
	w.line = append(appendSeconds(w.line, r.Duration), ',')
	for _, c := range []byte(class) {
		if c == ',' || c == '"' || c < ' ' {
			c = '_'
		}
		w.line = append(w.line, c)
	}
	_, err := w.w.Write(append(w.line, '\n'))
	return err
}

// Rows is how many were written.
func (w *Writer) Rows() int { return w.n }

// Close writes what is left.
func (w *Writer) Close() error {
	err := w.w.Flush()
	if w.z != nil && err == nil {
		err = w.z.Close()
	}
	return err
}

func appendSeconds(b []byte, ms int64) []byte {
	if ms%1000 == 0 {
		return strconv.AppendInt(b, ms/1000, 10)
	}
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}
