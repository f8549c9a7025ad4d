package terminal

import (
	"io"
	"unicode/utf8"
)

// maxCSI bounds the parameters of a sequence that is let through or dropped;
// real ones are shorter than this.
const maxCSI = 64

// reset ends any colour a log left behind.
const reset = "\x1b[0m"

// Filter passes a log on to a terminal. Text, line breaks, tabs, carriage
// returns and colours (SGR) go through. Cursor movement and erasing, which
// progress bars are made of, are dropped. Every other control character and
// the start of every other sequence (window titles, clipboard, hyperlinks,
// queries, mode switches, charsets) is shown as a visible symbol, so that
// nothing can be hidden in it and the terminal never sees it. Invalid UTF-8
// becomes U+FFFD. Memory is bounded; chunks may be cut anywhere.
type Filter struct {
	w        io.Writer
	held     []byte // an unfinished sequence or character
	out      []byte
	coloured bool
}

// NewFilter returns a Filter that writes to w.
func NewFilter(w io.Writer) *Filter { return &Filter{w: w} }

// Write filters p. It reports len(p) unless writing to the terminal failed.
func (f *Filter) Write(p []byte) (int, error) {
	in := p
	if len(f.held) > 0 {
		in = append(f.held, p...)
	}
	rest := f.scan(in, false)
	f.held = append([]byte(nil), rest...)
	if err := f.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what was held back and ends colours. It does not close the
// underlying writer.
func (f *Filter) Close() error {
	f.scan(f.held, true)
	f.held = nil
	if f.coloured {
		f.out = append(f.out, reset...)
		f.coloured = false
	}
	return f.flush()
}

func (f *Filter) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	_, err := f.w.Write(f.out)
	f.out = f.out[:0]
	return err
}

// scan appends what of in may be shown to f.out and returns the unfinished
// tail; with last, nothing is left over.
func (f *Filter) scan(in []byte, last bool) []byte {
	for len(in) > 0 {
		c := in[0]
		switch {
		case c == 0x1b:
			n, wait := f.sequence(in, last)
			if wait {
				return in
			}
			in = in[n:]
		case c == '\n' || c == '\t' || c == '\r' || c >= 0x20 && c < 0x7f:
			f.out = append(f.out, c)
			in = in[1:]
		case c < 0x20 || c == 0x7f:
			f.symbol(c)
			in = in[1:]
		default:
			if !last && !utf8.FullRune(in) {
				return in
			}
			r, n := utf8.DecodeRune(in)
			if unsafe(r) {
				f.out = append(f.out, Escape(string(r))...)
			} else {
				f.out = utf8.AppendRune(f.out, r)
			}
			in = in[n:]
		}
	}
	return nil
}

// symbol shows a control character by its picture (U+2400 block).
func (f *Filter) symbol(c byte) {
	r := rune(0x2400) + rune(c)
	if c == 0x7f {
		r = 0x2421
	}
	f.out = utf8.AppendRune(f.out, r)
}

// sequence handles in, which starts with ESC, and returns how many bytes it
// consumed, or wait when the end of the sequence has not been seen.
func (f *Filter) sequence(in []byte, last bool) (n int, wait bool) {
	if len(in) == 1 && !last {
		return 0, true
	}
	if len(in) > 1 && in[1] == '[' {
		for i := 2; i < len(in) && i < maxCSI; i++ {
			c := in[i]
			if c >= '0' && c <= ';' {
				continue
			}
			switch c {
			case 'm':
				f.out = append(f.out, in[:i+1]...)
				f.coloured = true
				return i + 1, false
			case 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J', 'K':
				return i + 1, false
			}
			f.symbol(0x1b)
			return 1, false
		}
		if len(in) < maxCSI && !last {
			return 0, true
		}
	}
	f.symbol(0x1b)
	return 1, false
}
