// Command crdgen writes the CustomResourceDefinition of Fleet from the types of
// api/v1alpha1:
//
//	go run ./tools/crdgen > deploy/crds/muster.dev_fleets.yaml
//
// The schema follows from the Go types: bounds, lists of values and kinds of text
// from their tags, descriptions from their comments, defaults from
// Fleet.Default. Rules over several fields are in rules.go. A test fails when
// the file is stale.
package main
