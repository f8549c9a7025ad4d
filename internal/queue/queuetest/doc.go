// Package queuetest is the conformance suites of fleet.Queue ([Run]),
// fleet.Source ([RunSource]) and fleet.Signal alone ([RunSignal]): every queue,
// fakes included, passes its own. It may import fleet and test libraries only.
package queuetest
