package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// The horizons a forecast can be asked for.
const (
	MinHorizon     = time.Minute
	MaxHorizon     = 14 * 24 * time.Hour
	DefaultHorizon = 24 * time.Hour
)

// ParseHorizon reads how far ahead to forecast: a duration (90m, 6h), or days or
// weeks (3d, 2w), from MinHorizon to MaxHorizon. Empty is DefaultHorizon. The
// error is a *fleet.FieldError.
func ParseHorizon(s string) (time.Duration, error) {
	if s == "" {
		return DefaultHorizon, nil
	}
	d, err := time.ParseDuration(s)
	if n := len(s) - 1; err != nil && n > 0 && strings.ContainsRune("dw", rune(s[n])) {
		var days float64
		if days, err = strconv.ParseFloat(s[:n], 64); err == nil && s[n] == 'w' {
			days *= 7
		}
		if err == nil && days >= 0 && days <= 1000 {
			d = time.Duration(days * 24 * float64(time.Hour))
		}
	}
	if err != nil || d < MinHorizon || d > MaxHorizon {
		return 0, &fleet.FieldError{Wrong: fmt.Sprintf("%q is no horizon", s[:min(len(s), 40)]), Right: "1m to 2w, as 90m, 6h, 3d or 2w"}
	}
	return d, nil
}

// ParseZone reads the name of a time zone of the IANA database; empty is UTC.
// The error is a *fleet.FieldError.
func ParseZone(s string) (*time.Location, error) {
	zone, err := time.LoadLocation(s)
	if err != nil || s == "Local" {
		return nil, &fleet.FieldError{Wrong: fmt.Sprintf("%q is no time zone known here", s[:min(len(s), 40)]), Right: "a name such as Europe/Warsaw or UTC"}
	}
	return zone, nil
}
