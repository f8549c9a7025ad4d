// Package sandboxtest is the conformance suite of fleet.Sandboxes. Every
// adapter runs it, the fake included:
//
//	func TestConformance(t *testing.T) {
//		sandboxtest.Run(t, func(t *testing.T) sandboxtest.Harness { … })
//	}
//
// What a fake cannot have (limits, confinement) is tested where the harness
// says that it is real. A real adapter on a machine that lacks something says
// so in Harness.Without, and the suite then checks that the adapter admits it
// in Isolation.Lost instead.
//
// It may import fleet and the standard library.
package sandboxtest
