package advise

import (
	"fmt"
	"strings"

	"muster.dev/muster/internal/whatif"
)

// shapeOf is what nodes of an instance type hold: as such nodes were seen, or in
// proportion to another size of the same family that was.
func shapeOf(name string, seen *whatif.Seen) (s whatif.Shape, how string, ok bool) {
	for k, shape := range seen.Kinds {
		if k.InstanceType == name {
			return shape, "nodes of that type were seen", shape.MemoryBytes > 0
		}
	}
	family, size, _ := strings.Cut(name, ".")
	for k, shape := range seen.Kinds {
		f, other, cut := strings.Cut(k.InstanceType, ".")
		if a, b := times(size), times(other); cut && f == family && a > 0 && b > 0 && shape.MemoryBytes > 0 {
			r := float64(a) / float64(b)
			return whatif.Shape{MilliCPU: int64(r * float64(shape.MilliCPU)), MemoryBytes: int64(r * float64(shape.MemoryBytes))},
				fmt.Sprintf("its size is taken as %g times that of %s", r, k.InstanceType), true
		}
	}
	return s, "", false
}
