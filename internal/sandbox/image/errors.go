package image

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/fleet"
)

// explain makes the error of one reference: what, what is wrong, what to do.
func (c *Cache) explain(ref string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: no space below %s: %w; free some, or move the data directory", fleet.ErrFull, c.dir, err)
	}
	return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: fmt.Errorf("image %q: %w", ref, err)}
}
