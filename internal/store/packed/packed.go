// Package packed keeps bytes short: the observation of a large fleet is JSON of
// a hundred kilobytes, and a tenth of that deflated. It is pure and imports the
// standard library only.
package packed

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
)

// What is packed begins with a byte that says how it is kept.
const (
	plain    = 0
	deflated = 1
)

// worth is the length from which deflating pays.
const worth = 1 << 10

// Pack shortens what is worth it.
func Pack(b []byte) []byte {
	if len(b) >= worth {
		var buf bytes.Buffer
		buf.WriteByte(deflated)
		w, err := flate.NewWriter(&buf, flate.BestSpeed)
		if err == nil {
			if _, err = w.Write(b); err == nil {
				err = w.Close()
			}
		}
		if err == nil {
			return buf.Bytes()
		}
	}
	return append([]byte{plain}, b...)
}

// Unpack gives back what Pack was given; an error when b is no result of it.
func Unpack(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errors.New("nothing is stored")
	}
	switch b[0] {
	case plain:
		return b[1:], nil
	case deflated:
		return io.ReadAll(flate.NewReader(bytes.NewReader(b[1:])))
	}
	return nil, fmt.Errorf("unknown form %d", b[0])
}
