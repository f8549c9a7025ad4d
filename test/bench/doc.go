// Command bench measures the running product as a whole: it starts a real
// `muster up` on a data directory of its own and times tasks from submission
// over HTTP to the first instruction of their command, beside what runc,
// bwrap and docker need on the same machine in the same run.
//
//	go run ./test/bench            all measurements, as tables
//	go run ./test/bench -only warm
//	go run ./test/bench -only reaction -queue redis,nats
package main
