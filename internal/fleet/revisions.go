package fleet

import (
	"context"
	"time"
)

// Where a revision of a fleet's specification came from.
const (
	FromFile    = "file"    // of the machine
	FromAPI     = "API"     // a request
	FromCluster = "cluster" // the object of a Kubernetes cluster
)

// Revision is a fleet's specification as it was accepted.
type Revision struct {
	Number int64     `json:"number"` // 1 is the first; assigned by the store
	At     time.Time `json:"at"`
	// Author is who wrote it, as far as that is known: a user of the machine, the
	// bearer of a token, a field manager of the cluster.
	Author string `json:"author"`
	Source string `json:"source"`
	// Note says why, for people: "rollback to 3".
	Note string `json:"note,omitempty"`
	// Spec is the fleet as JSON, as it was written: without defaults. It names
	// secrets and holds none.
	Spec []byte `json:"spec"`
}

// RevisionFilter selects revisions; zero fields select all. Newest first.
type RevisionFilter struct {
	Before int64 // page: numbers less than this one
	Limit  int   // 0: 100, largest 10,000
}

// Revisions keeps every specification that a fleet had. None is ever changed
// or deleted.
type Revisions interface {
	// AppendRevision keeps a specification, durably, unless it is, byte for
	// byte, the newest one's. It returns the newest revision as it is then, and
	// whether that was added. ErrInvalid without a Spec.
	AppendRevision(ctx context.Context, r Revision) (Revision, bool, error)
	// Revision returns ErrNotFound for a number that there is not.
	Revision(ctx context.Context, number int64) (Revision, error)
	Revisions(ctx context.Context, f RevisionFilter) ([]Revision, error)
}
