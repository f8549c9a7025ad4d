package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
)

// Most of a note, in bytes: what a broker takes with an offset unless told
// otherwise (offset.metadata.max.bytes, 4096, in Kafka's broker configuration).
const noteMost = 4096

// notePrefix marks metadata of a commit as ours, with its version.
const notePrefix = "muster1:"

// note is what is kept beside a partition's committed offset, so that whoever
// takes the partition over need not deliver again what is settled, and knows
// what was delivered before.
type note struct {
	settled
	// seen is the first offset that was never handed out, at least mark.
	seen int64
	// tries counts deliveries of offsets below seen that are not settled, where
	// there was more than one.
	tries map[int64]int
}

// encode writes a note of at most noteMost bytes: numbers as varints, in
// base64 since the broker takes text. What does not fit is left out, from the
// highest offset down: those are delivered again after a crash.
func (n *note) encode() string {
	room := base64.RawStdEncoding.DecodedLen(noteMost - len(notePrefix))
	b := binary.AppendUvarint(nil, uint64(n.seen-n.mark)) //nolint:gosec // seen is at least mark
	var spans []byte
	count, at := 0, n.mark
	for _, x := range n.above {
		next := binary.AppendUvarint(spans, uint64(x.from-at)) //nolint:gosec // spans are sorted
		next = binary.AppendUvarint(next, uint64(x.to-x.from)) //nolint:gosec // spans are not empty
		if len(b)+binary.MaxVarintLen32+len(next) > room {
			break
		}
		spans, at = next, x.to
		count++
	}
	b = binary.AppendUvarint(b, uint64(count))
	b = append(b, spans...)
	at = n.mark
	for _, o := range slices.Sorted(maps.Keys(n.tries)) {
		next := binary.AppendUvarint(b, uint64(o-at))         //nolint:gosec // sorted
		next = binary.AppendUvarint(next, uint64(n.tries[o])) //nolint:gosec // a count
		if len(next) > room {
			break
		}
		b, at = next, o
	}
	return notePrefix + base64.RawStdEncoding.EncodeToString(b)
}

// decodeNote reads what encode wrote for a committed offset. Metadata of
// another program, or damaged, is a note of nothing: the records from the
// offset on are delivered, some of them again.
func decodeNote(mark int64, text string) note {
	none := note{settled: settled{mark: mark}, seen: mark}
	text, ours := strings.CutPrefix(text, notePrefix)
	b, err := base64.RawStdEncoding.DecodeString(text)
	if !ours || err != nil || mark < 0 {
		return none
	}
	r := varints{b: b}
	n := none
	n.seen = r.after(mark)
	at := mark
	for range r.next(noteMost) {
		from := r.after(at)
		to := r.after(from)
		if r.bad || from == at || to == from {
			return none
		}
		n.above = append(n.above, span{from, to})
		at = to
	}
	at = mark
	for !r.bad && len(r.b) > 0 {
		at = r.after(at)
		tries := int(r.next(1 << 30)) //nolint:gosec // bounded
		if n.tries == nil {
			n.tries = map[int64]int{}
		}
		n.tries[at] = tries
	}
	if r.bad {
		return none
	}
	return n
}

// varints reads numbers off a buffer until one is bad.
type varints struct {
	b   []byte
	bad bool
}

// next is a number of at most most; 0 where there is none such.
func (r *varints) next(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > most {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// after is an offset as its distance from another.
func (r *varints) after(o int64) int64 {
	const most = 1 << 62
	d := int64(r.next(most)) //nolint:gosec // bounded
	if d > most-o {
		r.bad = true
		return o
	}
	return o + d
}
