// Package tune searches the settings of the planner on a fleet's own history
// (layer L3). It may import what package sim may, and package sim: it runs
// nothing and reads nothing itself, but is given a function that tries settings.
//
// [Search] is a descent by coordinates with whole line scans: one knob after
// the other takes each value of its ladder while the others stand, and keeps
// the best; until a round changes nothing or the runs are used up. A setting is
// better when it meets the objective and the other does not; where both do,
// when it costs less; where neither does, when fewer tasks start late. So the
// result never misses the objective where any tried setting met it. The order
// is fixed and nothing is random: the same history gives the same settings.
//
// [Halves] splits a history, since settings that were chosen on some tasks
// always look good on those: what counts is the half that the search has not
// seen, and [Judge] says whether the gain holds there.
package tune
