package plan

// Version is the version of the planner, journaled with every decision. It is
// raised with every change after which Decide gives another plan or another
// state for an input it was given before: a constant, a default of
// [Policy.WithDefaults], a field of a plan or of what it is made from. A change
// of words in a sentence does not count, since sentences are made from the plan.
//
// A decision of the same version must come out bit for bit as it was recorded;
// one of an earlier version may, and whoever replays it is told which it was.
const Version = 2
