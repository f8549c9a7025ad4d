// Package terminal prints what others wrote without trusting it: names,
// reasons and logs come from agents, and an agent may put escape sequences
// into them that retitle, erase or re-type a user's terminal. It also lays out
// tables and says ages and sizes the way people do.
//
// It is pure formatting: it imports the standard library only and knows
// nothing of tasks.
package terminal
