package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"muster.dev/muster/internal/fleet"
)

// kinds are what an error reply of the server begins with, and what it means to
// us. See the prefixes in "Redis serialization protocol specification",
// https://redis.io/docs/latest/develop/reference/protocol-spec/, and those of
// access lists and clusters on their pages.
var kinds = []struct {
	prefix string
	kind   error
}{
	{"NOAUTH", fleet.ErrDenied},
	{"WRONGPASS", fleet.ErrDenied},
	{"NOPERM", fleet.ErrDenied},
	// What a server says to a long command of somebody it does not know yet.
	{"ERR Protocol error: unauthenticated", fleet.ErrDenied},
	{"ERR invalid password", fleet.ErrDenied},
	{"ERR AUTH", fleet.ErrDenied},
	{"ERR Client sent AUTH", fleet.ErrDenied},
	{"WRONGTYPE", fleet.ErrInvalid},
	{"OLDSERVER", fleet.ErrInvalid},
	{"TOOMANY", fleet.ErrInvalid},
	{"ERR DB index is out of range", fleet.ErrNotFound},
}

// wrap says what was done when err came, and of what kind it is. What a server
// answers otherwise (loading, out of memory, a replica, a slot that is not
// served, …) is taken for a server that cannot be used now.
func wrap(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("redis: %s: %w", doing, ctx.Err())
	}
	for _, known := range []error{fleet.ErrDenied, fleet.ErrInvalid, fleet.ErrUnavailable} {
		if errors.Is(err, known) {
			return fmt.Errorf("redis: %s: %w", doing, err)
		}
	}
	if _, ok := refusal(err); ok {
		for _, k := range kinds {
			if has(err, k.prefix) {
				return fmt.Errorf("redis: %s: %w: %w", doing, k.kind, err)
			}
		}
	}
	return fmt.Errorf("redis: %s: %w: %w", doing, fleet.ErrUnavailable, err)
}

// refusal is an error that the server replied with.
func refusal(err error) (redis.Error, bool) {
	var reply redis.Error
	ok := errors.As(err, &reply) && !errors.Is(err, redis.ErrClosed)
	return reply, ok
}

// has tells whether the server's reply begins with the prefix. An error that a
// script ended with keeps its beginning, but for old servers that put "ERR
// Error running script …" before it.
func has(err error, prefix string) bool {
	reply, ok := refusal(err)
	if !ok {
		return false
	}
	text := reply.Error()
	if strings.HasPrefix(text, "ERR Error running script") {
		return strings.Contains(text, ": "+prefix) || strings.Contains(text, "-"+prefix)
	}
	return strings.HasPrefix(text, prefix)
}

// noGroup tells whether the stream or the group is not there.
func noGroup(err error) bool {
	return has(err, "NOGROUP") || has(err, "ERR no such key")
}
