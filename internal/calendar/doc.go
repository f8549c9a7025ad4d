// Package calendar reads five-field cron expressions in an IANA time zone and
// says when they fire. It is pure: every function is a function of the time it
// is given. It imports fleet (for field errors) and a cron field parser.
//
// A [Rule] matches minutes of the local calendar ("slots"). Each slot fires
// once:
//
//   - a slot that the clocks jump over (02:30 on the night summer time begins,
//     the whole of 30 December 2011 in Apia) fires at the first instant after
//     the gap; several slots in one gap, or one in the gap and one at its end,
//     fire together, once;
//   - a slot that the clocks show twice (02:30 on the night summer time ends)
//     fires the first time only.
//
// So the times a rule fires at are strictly increasing. A window of a floor is
// counted in elapsed time from the firing, whatever the clocks do meanwhile.
//
// The fields are minute (0-59), hour (0-23), day of month (1-31), month (1-12
// or JAN-DEC) and day of week (0-7 or SUN-SAT, 0 and 7 are Sunday), each *, a
// value, a range a-b, a step */n or a-b/n, or a list of these. When both day
// fields are restricted, either one matching is enough, as in every cron.
package calendar
