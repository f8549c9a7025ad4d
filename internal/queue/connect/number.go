package connect

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// number reads what somebody measured: finite, and not negative. Its errors say
// what is wrong; what that means is the caller's to say.
func number(text string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	switch {
	case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
		return 0, fmt.Errorf("%.40q is no finite number", text)
	case v < 0:
		return 0, fmt.Errorf("%.40q is negative", text)
	}
	return v, nil
}

// Count reads a number of messages. Fractions, as averages have them, are
// rounded up: where something waits it is not zero.
func Count(text string) (int64, error) {
	v, err := number(text)
	if err == nil && v > 1<<53 {
		err = fmt.Errorf("%.40q is no number of messages", text)
	}
	if err != nil {
		return 0, err
	}
	return int64(math.Ceil(v)), nil
}

// Age reads a number of seconds, of at most ten years.
func Age(text string) (time.Duration, error) {
	v, err := number(text)
	if err == nil && v > 10*365*24*3600 {
		err = fmt.Errorf("%.40q is no age in seconds", text)
	}
	if err != nil {
		return 0, err
	}
	return time.Duration(v * float64(time.Second)), nil
}

// Time reads a time: RFC 3339, or seconds since 1970, or milliseconds where it is
// larger than 10^11 (seconds of the year 5138).
func Time(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(text)); err == nil && t.Year() >= 1970 {
		return t, nil
	}
	v, err := number(text)
	if err == nil && v > 1e14 {
		err = errors.New("too large")
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%.40q is neither RFC 3339 nor Unix time", text)
	}
	if v > 1e11 {
		v /= 1000
	}
	s, part := math.Modf(v)
	return time.Unix(int64(s), int64(part*1e9)), nil
}
