// Package connect has what every adapter of a queue opens its connection with:
// TLS settings and credentials that are read anew at each connection, so that
// a rotated password is taken up without a restart. It may import fleet and the
// standard library only.
package connect
