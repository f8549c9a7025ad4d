package kafka

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestSettled compares the set with a plain one.
func TestSettled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 60
		var s settled
		plain := map[int64]bool{}
		for range rapid.IntRange(0, 40).Draw(t, "adds") {
			from := rapid.Int64Range(0, most).Draw(t, "from")
			to := from + rapid.Int64Range(0, 5).Draw(t, "length")
			s.add(span{from, to})
			for o := from; o < to; o++ {
				plain[o] = true
			}
		}
		mark := int64(0)
		for plain[mark] {
			mark++
		}
		at := s.mark
		for _, x := range s.above {
			if x.from <= at || x.to <= x.from {
				t.Fatalf("%+v is not sorted, apart and full", s)
			}
			at = x.to
		}
		var gaps []int64
		s.gaps(most, func(x span) {
			for o := x.from; o < x.to; o++ {
				gaps = append(gaps, o)
			}
		})
		below := int64(0)
		for o := range int64(most) {
			if s.has(o) != plain[o] || slices.Contains(gaps, o) == plain[o] {
				t.Fatalf("offset %d: settled %v in %+v, want %v", o, s.has(o), s, plain[o])
			}
			if o >= mark && plain[o] {
				below++
			}
		}
		if s.mark != mark || s.below(most) != below {
			t.Fatalf("%+v: want mark %d and %d above it", s, mark, below)
		}
	})
}

func TestNote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := note{settled: settled{mark: rapid.Int64Range(0, 1<<50).Draw(t, "mark")}}
		at := n.mark
		for range rapid.IntRange(0, 3000).Draw(t, "spans") {
			x := span{from: at + rapid.Int64Range(1, 300).Draw(t, "gap")}
			x.to = x.from + rapid.Int64Range(1, 300).Draw(t, "length")
			n.above, at = append(n.above, x), x.to
		}
		n.seen = at + rapid.Int64Range(0, 100).Draw(t, "seen")
		for range rapid.IntRange(0, 5).Draw(t, "tries") {
			if n.tries == nil {
				n.tries = map[int64]int{}
			}
			n.tries[n.mark+rapid.Int64Range(0, 1000).Draw(t, "of")] = rapid.IntRange(2, 9).Draw(t, "count")
		}
		text := n.encode()
		if len(text) > noteMost {
			t.Fatalf("%d bytes", len(text))
		}
		got := decodeNote(n.mark, text)
		if got.mark != n.mark || got.seen != n.seen || len(got.above) > len(n.above) || !slices.Equal(got.above, n.above[:len(got.above)]) {
			t.Fatalf("read back as %+v", got)
		}
		for o, c := range got.tries {
			if n.tries[o] != c {
				t.Fatalf("offset %d: %d tries, want %d", o, c, n.tries[o])
			}
		}
		if len(text) < noteMost/2 && (len(got.above) != len(n.above) || !maps.Equal(got.tries, n.tries)) {
			t.Fatalf("of %+v only %+v was kept in %d bytes", n, got, len(text))
		}
	})
}

func FuzzDecodeNote(f *testing.F) {
	n := note{settled: settled{mark: 7, above: []span{{9, 12}, {20, 21}}}, seen: 30, tries: map[int64]int{8: 3}}
	f.Add(int64(7), n.encode())
	f.Add(int64(0), "")
	f.Add(int64(-1), "muster1:AAAA")
	f.Add(int64(1<<62), "muster1:////////////")
	f.Fuzz(func(t *testing.T, mark int64, text string) {
		n := decodeNote(mark, text)
		if n.mark != mark || n.seen < mark {
			t.Fatalf("%+v of %d", n, mark)
		}
		at := mark
		for _, x := range n.above {
			if x.from <= at || x.to <= x.from {
				t.Fatalf("%+v is not sorted, apart and full", n)
			}
			at = x.to
		}
		if mark < 0 {
			return
		}
		again := decodeNote(mark, n.encode())
		if len(n.encode()) < noteMost/2 && !reflect.DeepEqual(again, n) {
			t.Fatalf("%+v came back as %+v", n, again)
		}
	})
}
