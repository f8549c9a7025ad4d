package fleet

import (
	"bytes"
	"testing"
	"time"
)

func TestPackedIDs(t *testing.T) {
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	var last []byte
	for i := range 2000 {
		now := at.Add(time.Duration(i) * time.Millisecond)
		id := NewTaskID(now)
		b := id.Pack()
		if len(b) != 13 || UnpackTaskID(b) != id {
			t.Fatalf("%s packs into %x and back into %s", id, b, UnpackTaskID(b))
		}
		if bytes.Compare(last, b) >= 0 {
			t.Fatalf("%x does not sort after %x", b, last)
		}
		last = b
		if first := FirstTaskID(now); first > id || !ValidID("t", string(first)) || bytes.Compare(first.Pack(), b) > 0 {
			t.Fatalf("%s is not before %s", first, id)
		}
		if next := FirstTaskID(now.Add(time.Millisecond)); next <= id {
			t.Fatalf("%s is not after %s", next, id)
		}
	}
	for _, id := range []TaskID{"", "t1", "anything"} {
		if got := UnpackTaskID(id.Pack()); got != id {
			t.Errorf("%q comes back as %q", id, got)
		}
	}
}
