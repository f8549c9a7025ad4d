// Package queuetest is the conformance suite of fleet.Queue: every queue, fakes
// included, passes [Run]. It may import fleet and test libraries only.
package queuetest
