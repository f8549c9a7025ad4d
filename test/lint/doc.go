// Package lint holds the rules of the code base that a compiler does not
// check: which package may import which (the layer table of CONTRIBUTING.md),
// what the pure packages may not touch, what things may not be called, and
// that every package says what it is for. They are ordinary tests over the
// source files, so that `go test ./...` alone keeps them.
package lint
