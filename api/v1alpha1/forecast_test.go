package v1alpha1

import (
	"errors"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

func TestParseHorizon(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"": 24 * time.Hour, "1m": time.Minute, "90m": 90 * time.Minute, "1.5d": 36 * time.Hour, "2w": MaxHorizon, "336h": MaxHorizon,
	} {
		if got, err := ParseHorizon(s); got != want || err != nil {
			t.Errorf("%q: %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"59s", "3w", "-1d", "d", "nand", "infw", "1e9w", "1y", "0", "2w\x1b[2J", "ö"} {
		if got, err := ParseHorizon(s); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

func TestParseZone(t *testing.T) {
	for s, want := range map[string]string{"": "UTC", "UTC": "UTC", "Europe/Warsaw": "Europe/Warsaw"} {
		if got, err := ParseZone(s); err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"Local", "Mars/Olympus", "../etc/passwd", "/etc/passwd"} {
		if got, err := ParseZone(s); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
