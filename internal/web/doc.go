// Package web is the dashboard: files for browsers, embedded in the program.
//
// They are plain ES modules that ask the HTTP API like any other client. No
// file says anything about a fleet, so they are served to everyone who reaches
// the address; what the fleet is comes from the API, to those signed in.
//
// It imports the standard library alone.
package web
