// Package servers starts the real servers that the queue adapters are tested
// against, each on a loopback port and a directory of its own, and ends them
// with the test. `make test` installs the programs; a test whose program is
// missing is skipped on a developer's machine and fails where CI is set. It may
// import test libraries and, for fakes of what cannot be had, the SDK whose
// protocol they speak.
package servers
