// Package evidence gathers what can be shown of a fleet (layer L3): what it ran
// on and that nothing else did, how it was sized and by whom, how fast it
// reacted, how each agent was confined, what an agent-hour cost. [Service] reads
// the store and asks the ledger; [Write] makes one page for people of it.
//
// It shows records and infers nothing: a time that nobody looked is a gap, what
// was only asked for is marked as not observed, and what could not be read is a
// note, never left out in silence.
//
// It may import packages fleet and api/v1alpha1.
package evidence
