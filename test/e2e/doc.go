// Package e2e runs the real muster binary with real sandboxes, as a user
// would: it builds muster and muster-runner, starts `muster up` on a fresh
// data directory and a free loopback port, and drives it through the command
// line and the HTTP API. The tests need root and an OCI runtime; without them
// they say what is missing and skip.
package e2e
