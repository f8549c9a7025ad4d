package terminal

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"plain":              "plain",
		"zażółć 日本 👩‍💻":      "zażółć 日本 👩‍💻",
		"a\x1b[2Jb":          `a\x1b[2Jb`,
		"a\nb\tc\r":          `a\nb\tc\r`,
		"\x9b31m":            `\x9b31m`,
		"\u009b31m":          `\u009b31m`,
		"abc\u202exyz":       `abc\u202exyz`,
		"nul\x00del\x7f":     `nul\x00del\x7f`,
		"\ufffd is honest":   "\ufffd is honest",
		"tag \U000e0041 end": `tag \U000e0041 end`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
	if got := EscapeLines("a\r\nb\x1b\tc"); got != "a\nb\\x1b\tc" {
		t.Errorf("EscapeLines: %q", got)
	}
}

func filtered(chunks ...string) string {
	var b bytes.Buffer
	f := NewFilter(&b)
	for _, c := range chunks {
		_, _ = f.Write([]byte(c))
	}
	_ = f.Close()
	return b.String()
}

func TestFilter(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"line\r\n\tnext\n", "line\r\n\tnext\n"},
		{"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"},
		{"\x1b[38;2;1;2;3mx", "\x1b[38;2;1;2;3mx\x1b[0m"},
		{"50%\x1b[2K\x1b[1G60%", "50%60%"},
		{"\x1b]0;owned\x07", "␛]0;owned␇"},
		{"\x1b[?1049h", "␛[?1049h"},
		{"\x1b[6n", "␛[6n"},
		{"\x1bc", "␛c"},
		{"\x1bP1$r\x1b\\", "␛P1$r␛\\"},
		{"bell\a back\b", "bell␇ back␈"},
		{"\xff\xfe", "\ufffd\ufffd"},
		{"\u009b2J", `\u009b2J`},
		{"cut off \x1b[3", "cut off ␛[3"},
		{"half \xc3", "half \ufffd"},
	} {
		if got := filtered(c.in); got != c.want {
			t.Errorf("filter %q = %q, want %q", c.in, got, c.want)
		}
	}
}

// However a log is cut into chunks, the terminal sees the same bytes.
func TestFilterChunksDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.StringOf(rapid.RuneFrom([]rune("ab\x1b[]m;0123K\n\r\aż\u009b"))).Draw(t, "in")
		cut := rapid.IntRange(0, len(in)).Draw(t, "cut")
		if got, want := filtered(in[:cut], in[cut:]), filtered(in); got != want {
			t.Fatalf("cut at %d: %q, whole: %q", cut, got, want)
		}
	})
}

// onlySGR fails when s holds a control a terminal would act on beyond colours.
func onlySGR(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Fatalf("invalid UTF-8 in %q", s)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == 0x1b {
			end := strings.IndexByte(s[i:], 'm')
			if end < 0 || !strings.HasPrefix(s[i:], "\x1b[") || strings.Trim(s[i+2:i+end], "0123456789:;") != "" {
				t.Fatalf("a sequence other than a colour in %q", s)
			}
			continue
		}
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			t.Fatalf("control %#x in %q", c, s)
		}
	}
	for _, r := range s {
		if r >= 0x80 && r < 0xa0 {
			t.Fatalf("C1 control in %q", s)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("\x1b[31mred\x1b]0;t\x07", 3)
	f.Add("\x1b[999999999999999999999999999999999999999999999999999999999999999999999m", 9)
	f.Fuzz(func(t *testing.T, in string, cut int) {
		cut = min(max(cut, 0), len(in))
		onlySGR(t, filtered(in[:cut], in[cut:]))
		for _, r := range Escape(in) {
			if unsafe(r) {
				t.Fatalf("Escape left %U in", r)
			}
		}
	})
}

func TestMeasures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 42 * time.Microsecond: "42µs", 4100 * time.Microsecond: "4.1ms", 4 * time.Millisecond: "4ms",
		312 * time.Millisecond: "312ms", 3200 * time.Millisecond: "3.2s", 42 * time.Second: "42s",
		192 * time.Second: "3m12s", 2 * time.Hour: "2h", 5*time.Hour + 4*time.Minute: "5h4m",
		51 * time.Hour: "2d3h", -90 * time.Second: "-1m30s",
	} {
		if got := Age(d); got != want {
			t.Errorf("Age(%d) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 2 << 30: "2 GiB", 500 << 20: "500 MiB",
		1<<20 - 1: "1 MiB", -2048: "-2 KiB", 1<<63 - 1: "8 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	tab := &Table{Columns: []Column{{Title: "ID"}, {Title: "N", Right: true}, {Title: "REASON", Flex: true, Least: 10}}}
	tab.Row(Text("t1", "7", "a long reason that tells\x1b[2J a story")...)
	tab.Row(Cell{Text: "t22", Style: "32"}, Cell{Text: "12"})
	var b bytes.Buffer
	if _, err := tab.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	want := "ID    N  REASON\nt1    7  a long reason that tells\\x1b[2J a story\nt22  12  -\n"
	if b.String() != want {
		t.Errorf("got\n%s want\n%s", b.String(), want)
	}
	tab.Width, tab.Colour = 24, true
	b.Reset()
	_, _ = tab.WriteTo(&b)
	lines := strings.Split(b.String(), "\n")
	if lines[1] != "t1    7  a long reason …" {
		t.Errorf("cut: %q", lines[1])
	}
	if !strings.HasPrefix(lines[2], "\x1b[32mt22\x1b[0m  12") {
		t.Errorf("style: %q", lines[2])
	}
}

func TestWidth(t *testing.T) {
	if got := Width("日本 e\u0301"); got != 6 {
		t.Errorf("Width = %d", got)
	}
	if got := Cut("日本語", 4); got != "日…" {
		t.Errorf("Cut = %q", got)
	}
}
