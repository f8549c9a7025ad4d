// Command crowd serves the API and the dashboard of a large fleet whose
// sandboxes and nodes are fakes: everything else, the loop, the dispatcher and
// the server, is what runs in production. It is how ten thousand sandboxes are
// looked at on a small machine.
//
//	go run ./test/crowd -sandboxes 10000
//
// prints the address that signs a browser in, once all of them are there. It
// keeps nothing on the disk but the logs of its tasks, which go with it.
package main
