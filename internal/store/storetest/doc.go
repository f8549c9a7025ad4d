// Package storetest is the conformance suite of fleet.Store together with the
// queue that is part of it: every store, fakes included, passes [Run]. It may
// import fleet and test libraries only.
package storetest
