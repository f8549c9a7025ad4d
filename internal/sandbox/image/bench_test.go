package image

import (
	"bytes"
	"fmt"
	"testing"

	"archive/tar"
)

// BenchmarkUnpack unpacks 5,000 small files in 500 directories.
func BenchmarkUnpack(b *testing.B) {
	var entries []tar.Header
	for d := range 500 {
		entries = append(entries, dir(fmt.Sprintf("usr/share/d%03d", d)))
		for f := range 10 {
			entries = append(entries, file(fmt.Sprintf("usr/share/d%03d/f%d", d, f)))
		}
	}
	text := stream(b, entries...)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := unpack(b.TempDir(), bytes.NewReader(text), plainForm(), newBudget(Options{MaxBytes: 1 << 30, MaxEntries: 1 << 20})); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResolveCached is what every further sandbox of an image pays.
func BenchmarkResolveCached(b *testing.B) {
	c := open(b, b.TempDir(), Options{})
	ref := writeLayout(b, base(b))
	for b.Loop() {
		if _, err := c.Resolve(b.Context(), ref); err != nil {
			b.Fatal(err)
		}
	}
}
