// Package queues has every queue that Muster takes tasks from, each on a server
// of a test's own, as a producer sees it: the block of the fleet, sending, and
// what the server itself counts. The servers are those of queuetest/servers.
package queues
