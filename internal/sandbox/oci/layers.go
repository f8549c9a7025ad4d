package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Layers returns the image layers that sandboxes here are laid over, those of
// an earlier process and half-made ones included: they must not be removed.
func (s *Sandboxes) Layers(ctx context.Context) ([]string, error) {
	ids, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, id := range ids {
		r, err := readRecord(filepath.Join(s.o.Dir, string(id)))
		if errors.Is(err, os.ErrNotExist) {
			continue // nothing of it was mounted, or it is gone
		}
		if err != nil {
			return nil, fmt.Errorf("layers in use: %w", err)
		}
		out = append(out, r.Lower...)
	}
	return out, nil
}
