package main

import (
	"errors"
	"testing"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// A queue with stats alone is for those who only read.
func TestPostgresStatsAlone(t *testing.T) {
	q := &v1alpha1.PostgresQueue{Host: "127.0.0.1", Port: 1, SQL: &v1alpha1.PostgresSQL{Stats: "SELECT 1 AS backlog"}}
	if _, err := openPostgres(t.Context(), q, queueOptions{}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("to be worked off: %v", err)
	}
	s, err := openPostgres(t.Context(), q, queueOptions{readOnly: true})
	if err != nil {
		t.Fatalf("to be read: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !postgresConfig(q, queueOptions{readOnly: true}).ReadOnly {
		t.Error("not read only")
	}
}
