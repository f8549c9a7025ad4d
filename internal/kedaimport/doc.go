// Package kedaimport makes Fleets of KEDA's ScaledObjects and ScaledJobs, so
// that Muster can be tried on what a team has. A Fleet has mode: scale: the
// team's workers go on taking from the queue, and Muster says how many there
// should be.
//
// Nothing vanishes silently. What a document says is either in the Fleet, or in a
// Note with a reason: every object that is read remembers what was asked of it,
// and what nobody asked for is noted at the end. Credentials are never copied:
// a Fleet names where they are, and a value that is written in clear becomes a
// note. What has to be there and is not known becomes a placeholder (Unknown)
// with a note of kind todo.
//
// The fields of triggers are from KEDA 2.21: "Scalers" and "ScaledObject
// specification" in its documentation, and the tags of its scalers' metadata.
//
// It may import fleet, api/v1alpha1, calendar, and a YAML parser.
package kedaimport
