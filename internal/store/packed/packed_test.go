package packed

import (
	"bytes"
	"testing"
)

func TestPack(t *testing.T) {
	for _, b := range [][]byte{nil, {}, []byte("short"), bytes.Repeat([]byte(`{"a":1}`), 10_000)} {
		p := Pack(b)
		if len(b) > 10_000 && len(p) > len(b)/5 {
			t.Errorf("%d bytes became %d", len(b), len(p))
		}
		got, err := Unpack(p)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes came back as %d, %v", len(b), len(got), err)
		}
	}
}

func TestUnpackDamage(t *testing.T) {
	whole := Pack(bytes.Repeat([]byte("0123456789"), 1000))
	for _, b := range [][]byte{nil, {7, 1, 2}, whole[:len(whole)/2], {deflated, 0xff}} {
		if got, err := Unpack(b); err == nil {
			t.Errorf("%d damaged bytes were read as %d", len(b), len(got))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte{plain, 1})
	f.Add(Pack(bytes.Repeat([]byte("x"), 2000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Unpack(b)
		if err != nil {
			return
		}
		if again, err := Unpack(Pack(got)); err != nil || !bytes.Equal(again, got) {
			t.Errorf("came back changed: %v", err)
		}
	})
}
