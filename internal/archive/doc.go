// Package archive keeps what tasks leave behind (fleet.Archive) in a directory:
//
//	<dir>/<last two characters of the task>/<task>/log.<attempt>
//	                                              /patch
//	                                              /artifacts/…
//	<dir>/tmp/…                                    files being written
//
// A log is a sequence of framed records, each with its time, its stream and a
// checksum, so that any bytes can be stored and a record torn by kill -9 or a
// full disk is recognized and cut. Records are not synced one by one: EndLog
// syncs the log. Patches and artifacts are written aside, synced and renamed:
// they are there whole or not at all.
//
// Names come from sandboxes and are not trusted: everything happens below an
// os.Root, which nothing escapes. The number of open files is bounded; what is
// held in memory for a log is a few kilobytes while it is written to, and
// little more: logs that were looked at last stay open.
package archive
