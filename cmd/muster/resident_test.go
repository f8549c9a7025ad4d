package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConstantPages(t *testing.T) {
	const maps = `00400000-01c3d000 r-xp 00000000 fe:00 123 /opt/bin/muster
01c3d000-03400000 r--p 0183d000 fe:00 123 /opt/bin/muster
03400000-034b0000 rw-p 03000000 fe:00 123 /opt/bin/muster
034b0000-03520000 rw-p 00000000 00:00 0 
7f0000000000-7f0000200000 r--p 00000000 fe:00 9 /opt/bin/muster-runner
7f0000200000-7f0000300000 r--s 00000000 fe:00 10 /opt/lib/muster
7ffc0000-7ffd0000 r-xp 00000000 00:00 0 [vdso]
`
	want := []pages{{0x400000, 0x1c3d000}, {0x1c3d000, 0x3400000}}
	if diff := cmp.Diff(want, constantPages([]byte(maps), "/opt/bin/muster"), cmp.AllowUnexported(pages{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
