package cost

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"

	"muster.dev/muster/internal/fleet"
)

// The first byte of an encoded book.
const (
	bookFirst   = 1 // without what was used and reported
	bookPacked  = 2 // any other, deflated
	bookVersion = 3
)

// What a line of a book has beside what all have, as bits.
const (
	lineUsed  = 1
	lineModel = 2
)

// maxBook bounds a book that was deflated, in bytes.
const maxBook = 64 << 20

// writer writes numbers, and texts as numbers of a list.
type writer struct {
	body  []byte
	texts map[string]uint64
	list  []string
}

func (w *writer) number(n int64) { w.body = binary.AppendVarint(w.body, n) }

func (w *writer) text(s string) {
	n, ok := w.texts[s]
	if !ok {
		n = uint64(len(w.list))
		w.texts[s] = n
		w.list = append(w.list, s)
	}
	w.body = binary.AppendUvarint(w.body, n)
}

// Encode writes a book in a few bytes a line; the same book gives the same
// bytes.
func (b *Book) Encode() []byte {
	w := &writer{texts: map[string]uint64{}}
	w.number(int64(len(b.Lines)))
	for _, k := range b.keys() {
		s := b.Lines[k]
		for _, t := range []string{string(k.Cause), k.Kind.Group, k.Kind.InstanceType, k.Kind.Capacity, string(k.Pool), string(k.Tenant), string(k.Labels)} {
			w.text(t)
		}
		w.number(int64(s.Amount))
		w.number(s.Millis)
		w.number(s.Settled)
		w.number(s.Succeeded)
		w.more(&s)
	}
	w.number(int64(len(b.Nodes)))
	for _, k := range b.nodeKeys() {
		w.text(string(k.Node))
		w.text(string(k.Cause))
		w.number(int64(b.Nodes[k]))
	}
	w.number(int64(len(b.Hours)))
	for _, at := range slices.Sorted(maps.Keys(b.Hours)) {
		h := b.Hours[at]
		for _, n := range []int64{at, int64(h.Amount), h.Nodes, h.Unpriced, h.Busy, h.Peak} {
			w.number(n)
		}
	}
	out := binary.AppendUvarint([]byte{bookVersion}, uint64(len(w.list)))
	for _, t := range w.list {
		out = append(binary.AppendUvarint(out, uint64(len(t))), t...)
	}
	return append(out, w.body...)
}

// more writes what only some lines have.
func (w *writer) more(s *Sum) {
	var has int64
	if s.Used != 0 || s.Measured != 0 {
		has |= lineUsed
	}
	if s.Model != (fleet.ModelUse{}) {
		has |= lineModel
	}
	w.number(has)
	if has&lineUsed != 0 {
		w.number(int64(s.Used))
		w.number(int64(s.Measured))
	}
	if has&lineModel != 0 {
		for _, n := range modelNumbers(&s.Model) {
			w.number(*n)
		}
	}
}

func modelNumbers(m *fleet.ModelUse) []*int64 {
	return []*int64{&m.Reports, &m.Priced, &m.MicroUSD, &m.InputTokens, &m.CacheReadTokens, &m.CacheWriteTokens, &m.OutputTokens}
}

// more reads what only some lines have.
func (r *reader) more(s *Sum) {
	has := r.number()
	if has < 0 || has > lineUsed|lineModel {
		r.wrong = true
	}
	if has&lineUsed != 0 {
		s.Used, s.Measured = Micro(r.number()), Micro(r.number())
	}
	if has&lineModel != 0 {
		for _, n := range modelNumbers(&s.Model) {
			*n = r.number()
		}
	}
}

// Pack is Encode, deflated: for the many books that are seldom read.
func (b *Book) Pack() []byte {
	var out bytes.Buffer
	out.WriteByte(bookPacked)
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(b.Encode())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil { // memory cannot be written to: never
		return b.Encode()
	}
	return out.Bytes()
}

// reader reads what writer wrote; after the first mistake it reads zeros.
type reader struct {
	b     []byte
	texts []string
	wrong bool
}

func (r *reader) number() int64 {
	n, used := binary.Varint(r.b)
	if !r.past(used) {
		return 0
	}
	return n
}

func (r *reader) index() uint64 {
	n, used := binary.Uvarint(r.b)
	if !r.past(used) {
		return 0
	}
	return n
}

// past goes on behind what was read; false where nothing could be.
func (r *reader) past(used int) bool {
	if used <= 0 {
		r.wrong, r.b = true, nil
		return false
	}
	r.b = r.b[used:]
	return true
}

// count is a number of things that take a byte each at least.
func (r *reader) count() int {
	n := r.number()
	if n < 0 || n > int64(len(r.b)) {
		r.wrong = true
		return 0
	}
	return int(n)
}

func (r *reader) text() string {
	n := r.index()
	if n >= uint64(len(r.texts)) {
		r.wrong = true
		return ""
	}
	return r.texts[n]
}

func (r *reader) list() {
	n := r.index()
	if n > uint64(len(r.b)) {
		r.wrong = true
		return
	}
	for range n {
		size := r.index()
		if size > uint64(len(r.b)) {
			r.wrong = true
			return
		}
		r.texts = append(r.texts, string(r.b[:size]))
		r.b = r.b[size:]
	}
}

// MergeEncoded adds an encoded book's charges, its nodes only where they are
// wanted: there are many. ErrCorrupt where it is none; the book may then have a
// part of it.
func (b *Book) MergeEncoded(content []byte, nodes bool) error {
	if len(content) > 0 && content[0] == bookPacked {
		plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(content[1:])), maxBook))
		if err != nil {
			return fmt.Errorf("a book of the ledger is damaged: %w: %w", fleet.ErrCorrupt, err)
		}
		content = plain
	}
	if len(content) == 0 || content[0] != bookVersion && content[0] != bookFirst {
		return fmt.Errorf("a book of the ledger is of an unknown form: %w", fleet.ErrCorrupt)
	}
	r := &reader{b: content[1:]}
	r.list()
	for range r.count() {
		k := Key{
			Cause: Cause(r.text()), Kind: fleet.NodeKind{Group: r.text(), InstanceType: r.text(), Capacity: r.text()},
			Pool: fleet.PoolKey(r.text()), Tenant: fleet.TenantID(r.text()), Labels: Labels(r.text()),
		}
		s := Sum{Amount: Micro(r.number()), Millis: r.number(), Settled: r.number(), Succeeded: r.number()}
		if content[0] == bookVersion {
			r.more(&s)
		}
		b.Lines[k] = b.Lines[k].plus(s)
	}
	for range r.count() {
		k := NodeKey{fleet.NodeID(r.text()), Cause(r.text())}
		if m := Micro(r.number()); nodes {
			b.Nodes[k] += m
		}
	}
	for range r.count() {
		at := r.number()
		b.Add(at, Hour{Micro(r.number()), r.number(), r.number(), r.number(), r.number()})
	}
	if r.wrong || len(r.b) > 0 {
		return fmt.Errorf("a book of the ledger is damaged: %w", fleet.ErrCorrupt)
	}
	return nil
}
