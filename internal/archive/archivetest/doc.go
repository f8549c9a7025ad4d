// Package archivetest is the conformance suite of fleet.Archive: every archive
// passes [Run]. It may import fleet and test libraries only.
package archivetest
