package fleet

import "context"

// QueueReading is one reading of one of the queues that a Queue is made of.
type QueueReading struct {
	Name  string
	Stats QueueStats // void with Err; of the last good reading where there was one
	Err   error
}

// Compound is a Queue made of several, each of which may fail to be read while
// the others can. Stats of a Compound adds up the good readings.
type Compound interface {
	Queue
	// Readings has one entry for each queue, always in the same order.
	Readings(ctx context.Context) []QueueReading
}
