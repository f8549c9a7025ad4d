// Package advise says what of a fleet could be set better (layer L3): smaller or
// larger templates from measured peaks, the standing minimum, floors for the
// peaks of the week, hold times, the size of nodes.
//
//	whatif.Lab ─▶ levers: candidates, each a patch ─▶ simulate ─▶ judge ─▶ Advice
//
// Every candidate is a patch of the fleet's spec that is checked as a whole fleet
// would be and simulated by package whatif on the tasks that the fleet ran. Of
// each lever at most one is advised ([judge]): it must save 1 % or, where the
// objective is missed, mend that; it must not break the objective nor let more
// tasks be late; and it has to do so on the later half of the history by itself,
// too. What is looked at and not advised is told with the reason.
//
// Limits come from measured peaks and never from means: the memory peak of an
// agent is a multiple of its mean, and a limit below it kills.
//
// It may import packages fleet, plan, control, cost, whatif and api/v1alpha1.
package advise
