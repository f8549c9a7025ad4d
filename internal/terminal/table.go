package terminal

import (
	"bufio"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Column is one column of a table.
type Column struct {
	Title string
	Right bool // numbers
	// Flex columns give way when the table is wider than the terminal: they
	// are cut with "…", to no less than Least characters.
	Flex  bool
	Least int
}

// Table lays out rows under columns. Cells are escaped; give styles with
// Cell.Style so that they do not count as width.
type Table struct {
	Columns []Column
	Width   int  // of the terminal; 0: not a terminal, nothing is cut
	Colour  bool // styles are written
	rows    [][]Cell
}

// Cell is one cell; Style is an SGR parameter such as "32" or empty.
type Cell struct {
	Text  string
	Style string
}

// Text makes cells without style.
func Text(s ...string) []Cell {
	cells := make([]Cell, len(s))
	for i, t := range s {
		cells[i] = Cell{Text: t}
	}
	return cells
}

// Row adds a row. Missing cells are empty.
func (t *Table) Row(cells ...Cell) {
	row := make([]Cell, len(t.Columns))
	for i := range row {
		if i < len(cells) {
			row[i] = Cell{Text: Escape(cells[i].Text), Style: cells[i].Style}
		}
		if row[i].Text == "" {
			row[i].Text = "-"
		}
	}
	t.rows = append(t.rows, row)
}

const gap = "  "

// WriteTo writes the header and all rows.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	widths := t.widths()
	b := bufio.NewWriter(w)
	counted := &counter{w: b}
	head := make([]Cell, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = Cell{Text: c.Title, Style: "1"}
	}
	t.line(counted, head, widths)
	for _, r := range t.rows {
		t.line(counted, r, widths)
	}
	return counted.n, b.Flush()
}

func (t *Table) widths() []int {
	widths := make([]int, len(t.Columns))
	for i, c := range t.Columns {
		widths[i] = Width(c.Title)
		for _, r := range t.rows {
			widths[i] = max(widths[i], Width(r[i].Text))
		}
	}
	if t.Width <= 0 {
		return widths
	}
	over := len(gap)*(len(widths)-1) - t.Width
	for _, n := range widths {
		over += n
	}
	for over > 0 {
		// The widest flexible column gives way first.
		widest := -1
		for i, c := range t.Columns {
			if c.Flex && widths[i] > max(c.Least, Width(c.Title), 8) && (widest < 0 || widths[i] > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
		over--
	}
	return widths
}

func (t *Table) line(w *counter, cells []Cell, widths []int) {
	var b strings.Builder
	for i, c := range cells {
		text := Cut(c.Text, widths[i])
		pad := strings.Repeat(" ", max(0, widths[i]-Width(text)))
		if t.Colour && c.Style != "" {
			text = "\x1b[" + c.Style + "m" + text + reset
		}
		if t.Columns[i].Right {
			b.WriteString(pad + text)
		} else {
			b.WriteString(text)
			if i < len(cells)-1 {
				b.WriteString(pad)
			}
		}
		if i < len(cells)-1 {
			b.WriteString(gap)
		}
	}
	b.WriteByte('\n')
	w.write(b.String())
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) write(s string) {
	n, _ := io.WriteString(c.w, s) // a bufio.Writer keeps the error for Flush
	c.n += int64(n)
}

// Width is the number of columns s takes on a terminal: marks and joiners
// none, wide East Asian characters and emoji two.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60,
		r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// Cut shortens s to at most width columns, ending in "…" when it was cut.
func Cut(s string, width int) string {
	if Width(s) <= width {
		return s
	}
	n, end := 0, 0
	for i, r := range s {
		n += runeWidth(r)
		if n > width-1 {
			break
		}
		end = i + utf8.RuneLen(r)
	}
	return s[:end] + "…"
}
