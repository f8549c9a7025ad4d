package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"time"

	"muster.dev/muster/internal/fleet"
)

// A log file begins with magic, and holds records one after another:
//
//	length  uint32  of the data
//	stream  uint8
//	time    int64   nanoseconds since 1970
//	sum     uint32  CRC-32C over the three above and the data
//	data
//
// all little-endian. The offset of a record is the sum of the lengths before.
const (
	magic      = "MSTRLOG1"
	headerSize = 4 + 1 + 8 + 4
	// maxData bounds the data of a record, so that a damaged length is told
	// from a real one; longer pieces are split.
	maxData = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The ways in which a log file ends before its end.
var (
	// errTorn: the last record is not all there.
	errTorn = errors.New("the last record is incomplete")
	// errDamaged: a record is there, but its checksum or form is wrong.
	errDamaged = errors.New("a record is damaged")
)

// appendRecord encodes a record with at most maxData bytes.
func appendRecord(b []byte, at time.Time, stream fleet.Stream, data []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, byte(stream))
	b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixNano()))
	sum := crc32.Update(crc32.Checksum(b[start:], castagnoli), castagnoli, data)
	b = binary.LittleEndian.AppendUint32(b, sum)
	return append(b, data...)
}

// frame is a record as read, with where it lies.
type frame struct {
	fleet.LogRecord
	pos int64 // of its header in the file
}

// frames reads the records of a log file.
type frames struct {
	r      *bufio.Reader
	pos    int64 // in the file
	offset int64 // in the log
}

func newFrames(r io.Reader, pos, offset int64) *frames {
	return &frames{r: bufio.NewReaderSize(r, 64<<10), pos: pos, offset: offset}
}

// next returns the next record; io.EOF at the end of the last one, errTorn or
// errDamaged where the file cannot be read on.
func (f *frames) next() (frame, error) {
	var head [headerSize]byte
	if n, err := io.ReadFull(f.r, head[:]); err != nil {
		if n > 0 && errors.Is(err, io.ErrUnexpectedEOF) {
			return frame{}, errTorn
		}
		return frame{}, err
	}
	length := binary.LittleEndian.Uint32(head[0:])
	if length == 0 || length > maxData {
		return frame{}, errDamaged
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(f.r, data); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return frame{}, errTorn
		}
		return frame{}, err
	}
	sum := crc32.Update(crc32.Checksum(head[:13], castagnoli), castagnoli, data)
	if sum != binary.LittleEndian.Uint32(head[13:]) {
		return frame{}, errDamaged
	}
	r := frame{pos: f.pos, LogRecord: fleet.LogRecord{
		Offset: f.offset, Stream: fleet.Stream(head[4]), Data: data,
		At: time.Unix(0, int64(binary.LittleEndian.Uint64(head[5:]))).UTC(),
	}}
	f.pos += headerSize + int64(length)
	f.offset += int64(length)
	return r, nil
}
