package forecast

import (
	"encoding/binary"
	"math/bits"
)

// A block is one sealed hour, a few bytes where little happened:
//
//	nothing            nobody looked at any minute of it
//	8 bytes            which minutes are known, bit i for minute i
//	runs, until each known minute is told:
//	  uvarint          how many minutes are alike
//	  uvarint          arrivals
//	  uvarint          peak of demand, in tasks
//	  uvarint          peak less mean, in sixteenths of a task
//
// A quiet hour takes 12 bytes, a busy one about 6 bytes a minute, and none more
// than maxBlock.

// maxBlock is the most bytes a block takes: the mask, and for each minute a
// run's length and three numbers of at most five bytes.
const maxBlock = 8 + minutesOfHour*(1+3*5)

// seal encodes an hour.
func (h *hour) seal() []byte {
	var known uint64
	for i := range h {
		if h[i].known {
			known |= 1 << i
		}
	}
	if known == 0 {
		return nil
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 16), known)
	for i := 0; i < len(h); {
		if !h[i].known {
			i++
			continue
		}
		run, next := 0, i
		for ; next < len(h) && (!h[next].known || h[next] == h[i]); next++ {
			if h[next].known {
				run++
			}
		}
		b = binary.AppendUvarint(b, uint64(run))
		b = binary.AppendUvarint(b, uint64(h[i].arrivals))
		b = binary.AppendUvarint(b, uint64(h[i].peak))
		b = binary.AppendUvarint(b, uint64(h[i].peak)*meanParts-uint64(h[i].mean))
		i = next
	}
	return b
}

// unseal decodes an hour. Damaged input is an error, never a panic.
func unseal(b []byte) (hour, error) {
	var h hour
	if len(b) == 0 {
		return h, nil
	}
	if len(b) < 8 || len(b) > maxBlock {
		return h, ErrDamaged
	}
	known := binary.LittleEndian.Uint64(b)
	if known == 0 || known>>minutesOfHour != 0 {
		return h, ErrDamaged
	}
	r := reader{b: b[8:]}
	for left := bits.OnesCount64(known); left > 0; {
		run := r.count(uint64(left))
		c := cell{known: true, arrivals: int32(r.count(maxArrivals)), peak: int32(r.count(maxDemand))}
		c.mean = c.peak*meanParts - int32(r.count(uint64(c.peak)*meanParts))
		if r.failed || run == 0 {
			return h, ErrDamaged
		}
		for left -= run; run > 0; run-- {
			i := bits.TrailingZeros64(known)
			known &^= 1 << i
			h[i] = c
		}
	}
	if len(r.b) > 0 {
		return h, ErrDamaged
	}
	return h, nil
}
