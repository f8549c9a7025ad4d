package calendar

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"muster.dev/muster/internal/fleet"
)

const example = `five fields "minute hour day month weekday", such as "0 8 * * MON"`

// part is one field of an expression.
type part struct {
	name, values string
}

var parts = [5]part{
	{"minute", "0-59"},
	{"hour", "0-23"},
	{"day of month", "1-31"},
	{"month", "1-12 or JAN-DEC"},
	{"day of week", "0-7 or SUN-SAT"},
}

var (
	item   = regexp.MustCompile(`^(\*|[0-9A-Za-z]{1,4}(-[0-9A-Za-z]{1,4})?)(/[0-9]{1,4})?$`)
	fields = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)
)

// Parse reads a cron expression and a time zone ("" is UTC). Errors are
// *fleet.FieldError with the field "cron" or "timezone".
func Parse(expr, zone string) (Rule, error) {
	loc, err := parseZone(zone)
	if err != nil {
		return Rule{}, err
	}
	f := strings.Fields(expr)
	if len(f) != len(parts) {
		return Rule{}, &fleet.FieldError{Field: "cron", Wrong: fmt.Sprintf("%q has %d fields", clip(expr), len(f)), Right: example}
	}
	for i, p := range parts {
		if f[i], err = checkPart(i, f[i]); err != nil {
			return Rule{}, &fleet.FieldError{
				Field: "cron", Wrong: fmt.Sprintf("%s: %v", p.name, err),
				Right: p.values + `, "*", ranges "a-b", steps "*/n" and lists "a,b"`,
			}
		}
	}
	s, err := fields.Parse(strings.Join(f, " "))
	if err != nil { // each field was parsed by itself before
		return Rule{}, &fleet.FieldError{Field: "cron", Wrong: err.Error(), Right: example}
	}
	r := Rule{expr: strings.Join(strings.Fields(expr), " "), slots: s, zone: loc}
	// 2000 is a leap year, so this looks at five years with a 29 February.
	if s.Next(time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Rule{}, &fleet.FieldError{Field: "cron", Wrong: fmt.Sprintf("%q never fires: no month has such a day", clip(expr)), Right: example}
	}
	return r, nil
}

func parseZone(zone string) (*time.Location, error) {
	if zone == "" {
		return time.UTC, nil
	}
	loc, err := time.LoadLocation(zone)
	// "Local" depends on the machine: the same file would mean other times
	// elsewhere.
	if err != nil || zone == "Local" {
		return nil, &fleet.FieldError{Field: "timezone", Wrong: fmt.Sprintf("%q is not a known time zone", clip(zone)), Right: `an IANA name such as "Europe/Warsaw" or "UTC"`}
	}
	return loc, nil
}

// checkPart checks field i by itself and returns it in the parser's terms.
func checkPart(i int, s string) (string, error) {
	list := strings.Split(s, ",")
	for n, it := range list {
		if !item.MatchString(it) {
			return "", fmt.Errorf("%q is not understood", clip(it))
		}
		if i == 4 {
			list[n] = sunday(it)
		}
	}
	s = strings.Join(list, ",")
	alone := []string{"*", "*", "*", "*", "*"}
	alone[i] = s
	if _, err := fields.Parse(strings.Join(alone, " ")); err != nil {
		return "", err
	}
	return s, nil
}

var weekdays = map[string]int{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}

// sunday rewrites an item in which 7 stands for Sunday; the parser knows 0
// only. A range that ends on a Sunday, as in FRI-SUN, is meant as 5-7.
func sunday(it string) string {
	span, step, stepped := strings.Cut(it, "/")
	lo, hi, ranged := strings.Cut(span, "-")
	from, ok := weekday(lo)
	if !ok {
		return it
	}
	if !ranged {
		if from == 7 && !stepped {
			return "0"
		}
		return it
	}
	to, ok := weekday(hi)
	if ok && to == 0 && from > 0 {
		to = 7
	}
	if !ok || to != 7 || from > to {
		return it
	}
	by := 1
	if stepped {
		by, _ = strconv.Atoi(step)
		if by < 1 {
			return it
		}
	}
	var days []string
	for d := from; d <= to; d += by {
		days = append(days, strconv.Itoa(d%7))
	}
	return strings.Join(days, ",")
}

func weekday(s string) (int, bool) {
	if d, ok := weekdays[strings.ToLower(s)]; ok {
		return d, true
	}
	d, err := strconv.Atoi(s)
	return d, err == nil
}

// clip keeps error messages short whatever the input was.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
