package kube

import (
	"context"
	"fmt"

	"muster.dev/muster/internal/fleet"
)

// source is one way to ask for nodes. Its methods are called one at a time but
// for placed, which does not block.
type source interface {
	// load returns what was asked for before and has not come, oldest first;
	// there is how many nodes are there.
	load(ctx context.Context, there int) ([]boot, error)
	// ask asks for more and returns all boots then, also beside an error.
	ask(ctx context.Context, more int, boots []boot) ([]boot, error)
	// came says that nodes came for some boots; left are those still wanted.
	came(ctx context.Context, done, left []boot) error
	// withdraw gives boots up; left are those still wanted.
	withdraw(ctx context.Context, gone, left []boot) error
	// release says that a node, closed and empty, is not wanted any more.
	release(ctx context.Context, node string) error
	// reusable tells whether a node that was given back may be taken back.
	reusable() bool
	// places tells whether placed will say for which boot a node came.
	places() bool
	// placed names the node that a boot has got; empty: none yet.
	placed(id string) string
	// refused says of boots that wait why they wait in vain, by id.
	refused(ctx context.Context, waiting []boot) (map[string]string, error)
}

// nothing asks for no nodes.
type nothing struct{}

func (nothing) load(context.Context, int) ([]boot, error) { return nil, nil }

func (nothing) ask(_ context.Context, more int, boots []boot) ([]boot, error) {
	return boots, fmt.Errorf("ask for %d nodes: nothing here brings any: %w", more, fleet.ErrInvalid)
}
func (nothing) came(context.Context, []boot, []boot) error     { return nil }
func (nothing) withdraw(context.Context, []boot, []boot) error { return nil }
func (nothing) release(context.Context, string) error          { return nil }
func (nothing) reusable() bool                                 { return false }
func (nothing) places() bool                                   { return false }
func (nothing) placed(string) string                           { return "" }

func (nothing) refused(context.Context, []boot) (map[string]string, error) { return nil, nil }
