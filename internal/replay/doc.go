// Package replay makes journaled decisions again (layer L3). It may import
// packages fleet, plan and control (for what an engine would have observed).
//
// A [Source] yields decisions: a server, or a journal exported to a file
// ([Reader], [Writer]). Two questions can be asked of it:
//
//   - [Check]: does each decision, made again under the policy it was made
//     under, come out bit for bit as it was recorded? This holds for every
//     decision of the planner's present version, on any machine of the same
//     processor architecture.
//   - [Compare]: what would another fleet's specification have decided of the
//     same observations? This is open loop: every decision looks at the world as
//     the recorded ones made it, not as its own would have.
//
// An exported journal is lines of JSON, each an object with one member:
//
//	{"journal":{"format":1}}                          the first line
//	{"policy":{"digest":"…","policy":{…}}}            before the first decision under it
//	{"decision":{"seq":12,"at":"…","policy":"…",…}}   with rising seq
//	{"end":{"decisions":345}}                         the last line
package replay
