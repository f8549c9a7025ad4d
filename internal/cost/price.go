package cost

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Micro is an amount of money in millionths of a US dollar.
type Micro int64

// USD formats an amount as dollars with all six decimals: "-0.000001".
func (m Micro) USD() string {
	sign, v := "", uint64(m) //nolint:gosec // the sign is dealt with below
	if m < 0 {
		sign, v = "-", -v
	}
	return fmt.Sprintf("%s%d.%06d", sign, v/1e6, v%1e6)
}

// Price is what a node costs from a moment on.
type Price struct {
	From    time.Time // the zero time: since ever
	PerHour Micro     // 0 or more
}

// Prices are those of one kind of node, by From; before the first one nothing
// is paid.
type Prices []Price

// MaxPerHour bounds a price: a million dollars an hour. With it a bill over
// 250,000 node-years still fits.
const MaxPerHour Micro = 1e12

// Check says what is wrong with prices: negative or absurd ones, periods that
// begin together or out of order. field is their path in what the user wrote.
func (p Prices) Check(field string) error {
	for i, x := range p {
		at := fmt.Sprintf("%s[%d]", field, i)
		switch {
		case x.PerHour < 0:
			return &fleet.FieldError{Field: at + ".perHour", Wrong: x.PerHour.USD() + " is negative", Right: "0 or more"}
		case x.PerHour > MaxPerHour:
			return &fleet.FieldError{Field: at + ".perHour", Wrong: x.PerHour.USD() + " is more than a node can cost", Right: "at most " + MaxPerHour.USD()}
		case i > 0 && x.From.Equal(p[i-1].From):
			return &fleet.FieldError{Field: at + ".from", Wrong: "another price begins at the same time", Right: "one price for each time"}
		case i > 0 && x.From.Before(p[i-1].From):
			return &fleet.FieldError{Field: at + ".from", Wrong: "it begins before the price above it", Right: "prices in the order of time"}
		}
	}
	return nil
}

// amount is money times time before it is rounded: micro-USD an hour times
// nanoseconds, in 128 bits.
type amount struct{ hi, lo uint64 }

func (a *amount) add(perHour Micro, d time.Duration) {
	if perHour <= 0 || d <= 0 {
		return
	}
	hi, lo := bits.Mul64(uint64(perHour), uint64(d))
	var carry uint64
	a.lo, carry = bits.Add64(a.lo, lo, 0)
	a.hi += hi + carry
}

// micro rounds down to whole micro-USD.
func (a amount) micro() Micro {
	q, _ := bits.Div64(a.hi, a.lo, uint64(time.Hour)) // hi < 3.6e12: see MaxPerHour
	return Micro(q)                                   //nolint:gosec // bounded by MaxPerHour over 290 years
}

// over adds what the stretch [from, to) costs.
func (p Prices) over(a *amount, from, to time.Time) {
	for i, x := range p {
		start, end := x.From, to
		if start.Before(from) {
			start = from
		}
		if i+1 < len(p) && p[i+1].From.Before(end) {
			end = p[i+1].From
		}
		a.add(x.PerHour, end.Sub(start))
	}
}

// at returns the index of the price in force, -1 for none.
func (p Prices) at(t time.Time) int {
	i, found := slices.BinarySearchFunc(p, t, func(x Price, t time.Time) int { return x.From.Compare(t) })
	if found {
		return i
	}
	return i - 1
}

// PerHour is the price in force at a moment; 0 where there is none.
func (p Prices) PerHour(t time.Time) Micro {
	if i := p.at(t); i >= 0 {
		return p[i].PerHour
	}
	return 0
}
