// Package trace reads, scales and writes demand traces (part of layer L3,
// internal/sim): CSV rows `arrival_unix_seconds,duration_seconds[,class]`,
// sorted by arrival, plain or gzip. It may import package fleet.
//
// Everything is a stream: a trace of a gigabyte costs as much memory as one of
// a kilobyte. Reading is strict. What is wrong is refused with its line: a
// number that is none, a negative duration, an arrival before the one above.
//
// [Source] opens a trace as often as wanted; [Select] and [Multiply] put a
// window or copies around one. Nothing here reads a clock or global random
// numbers, so that one seed gives one trace.
package trace
