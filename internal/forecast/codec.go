package forecast

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// MaxEncoded bounds an encoded history, in bytes: six weeks of minutes that
// are all different, and a full sketch.
const MaxEncoded = 2 << 20

// The encodings begin with a version; one that is not known is refused.
const (
	versionPast = 1
	versionOpen = 1
)

// ErrDamaged says that bytes are no history of ours, or one that was cut or
// changed.
const ErrDamaged damage = "not a history that can be read"

type damage string

// Error implements error.
func (d damage) Error() string { return string(d) }

// Revision grows whenever what EncodePast returns has changed beyond waits: at
// the end of each hour.
func (h *History) Revision() int { return h.sealed }

// EncodePast encodes the sealed hours and the sketch, in at most MaxEncoded
// bytes.
//
//	version
//	hour of the first block, number of blocks, each block with its length
//	slots: count, then hour of the week, week, weeks seen, three digests
func (h *History) EncodePast() []byte {
	b := []byte{versionPast}
	b = binary.AppendVarint(b, h.first)
	b = binary.AppendUvarint(b, uint64(len(h.blocks)))
	for _, block := range h.blocks {
		b = binary.AppendUvarint(b, uint64(len(block)))
		b = append(b, block...)
	}
	n := 0
	for _, x := range h.sketch {
		if x != nil {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for i, x := range h.sketch {
		if x == nil {
			continue
		}
		b = binary.AppendUvarint(b, uint64(i))
		b = binary.AppendVarint(b, x.week)
		b = binary.AppendUvarint(b, uint64(x.weeks))
		for j := range x.parts {
			b = x.parts[j].append(b)
		}
	}
	return b
}

func (d *digest) append(b []byte) []byte {
	b = append(b, byte(len(d.masses)))
	if len(d.masses) == 0 {
		return b
	}
	for _, v := range []float64{d.weight, d.sum, d.square} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	for _, m := range d.masses {
		b = append(b, m.bucket)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(m.weight))
	}
	return b
}

// EncodeOpen encodes what EncodePast leaves out: the hour and the minute that
// are being filled, and the last reading. At most a kilobyte.
func (h *History) EncodeOpen() []byte {
	b := []byte{versionOpen, 0}
	if h.filling {
		b[1] = 1
	}
	b = binary.AppendVarint(b, h.openAt)
	block := h.open.seal()
	b = binary.AppendUvarint(b, uint64(len(block)))
	b = append(b, block...)
	at := int64(0)
	if !h.at.IsZero() {
		at = h.at.UnixNano()
	}
	p := h.minute
	for _, v := range []int64{at, h.last.Arrived, int64(h.last.Demand), p.at, p.arrivals, int64(p.peak)} {
		b = binary.AppendVarint(b, v)
	}
	for _, v := range []float64{p.seconds, p.area} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}

// Decode restores a history from what EncodePast and EncodeOpen returned; each
// may be empty. Where the two are of different moments the past is believed:
// an open hour that it has sealed already is dropped. The error wraps
// ErrDamaged, and no history comes with it.
func Decode(past, open []byte) (*History, error) {
	h := &History{}
	if len(past) > 0 {
		if err := h.decodePast(past); err != nil {
			return nil, fmt.Errorf("past: %w", err)
		}
	}
	if len(open) > 0 {
		if err := h.decodeOpen(open); err != nil {
			return nil, fmt.Errorf("open hour: %w", err)
		}
	}
	return h, nil
}

// farthest bounds hours, weeks and minutes of what is decoded: the year 10000.
const farthest = int64(8100 * 366 * 24 * 60)

func (h *History) decodePast(b []byte) error {
	r := reader{b: b}
	if len(b) > MaxEncoded || r.byte() != versionPast {
		return ErrDamaged
	}
	h.first = r.signed(farthest)
	n := r.count(rawHours)
	for range n {
		block := r.bytes(r.count(maxBlock))
		if _, err := unseal(block); err != nil {
			return err
		}
		if len(block) == 0 {
			block = nil
		}
		h.blocks = append(h.blocks, block)
	}
	last := -1
	for range r.count(hoursOfWeek) {
		i := r.count(hoursOfWeek - 1)
		x := &slot{week: r.signed(farthest), weeks: int32(r.count(math.MaxInt32))}
		for j := range x.parts {
			x.parts[j] = r.digest()
		}
		if r.failed || i <= last {
			return ErrDamaged
		}
		h.sketch[i], last = x, i
	}
	if r.failed || len(r.b) > 0 {
		return ErrDamaged
	}
	return nil
}

func (h *History) decodeOpen(b []byte) error {
	r := reader{b: b}
	if r.byte() != versionOpen {
		return ErrDamaged
	}
	filling := r.count(1) == 1
	at := r.signed(farthest)
	minutes, err := unseal(r.bytes(r.count(maxBlock)))
	if err != nil {
		return err
	}
	read := r.signed(math.MaxInt64)
	last := Reading{Arrived: r.signed(math.MaxInt64), Demand: int(r.signed(math.MaxInt32))}
	p := partial{at: r.signed(farthest), arrivals: r.signed(math.MaxInt32), peak: int(r.signed(math.MaxInt32))}
	p.seconds, p.area = r.float(), r.float()
	if r.failed || len(r.b) > 0 || !(p.seconds >= 0 && p.seconds <= 3600 && p.area >= 0 && p.area < 1e15) || p.arrivals < 0 || p.peak < 0 || last.Demand < 0 {
		return ErrDamaged
	}
	if len(h.blocks) > 0 && at < h.first+int64(len(h.blocks)) {
		return nil // sealed already
	}
	if filling {
		h.filling, h.openAt, h.open = true, at, minutes
	}
	if read != 0 {
		h.at, h.last, h.minute = time.Unix(0, read).UTC(), last, p
	}
	return nil
}

// reader takes numbers off the front of bytes. After a failure everything is
// zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) bytes(n int) []byte {
	if r.failed || n > len(r.b) {
		r.failed = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// count reads an unsigned number of at most most.
func (r *reader) count(most uint64) int {
	v, n := binary.Uvarint(r.b)
	if r.failed || n <= 0 || v > most {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

// signed reads a number between -most and most.
func (r *reader) signed(most int64) int64 {
	v, n := binary.Varint(r.b)
	if r.failed || n <= 0 || v > most || v < -most {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) float() float64 {
	if b := r.bytes(8); b != nil {
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
	return 0
}

func (r *reader) digest() digest {
	var d digest
	n := int(r.byte())
	if n == 0 || r.failed {
		return d
	}
	d.weight, d.sum, d.square = r.float(), r.float(), r.float()
	for range n {
		m := mass{bucket: r.byte()}
		if b := r.bytes(4); b != nil {
			m.weight = math.Float32frombits(binary.LittleEndian.Uint32(b))
		}
		if r.failed {
			return digest{}
		}
		d.masses = append(d.masses, m)
	}
	if !d.sound() {
		r.failed = true
	}
	return d
}
