// Package web holds the tests that look at the dashboard in a real browser.
//
// It is a module of its own so that what drives the browser is no dependency
// of Muster's.
package web
