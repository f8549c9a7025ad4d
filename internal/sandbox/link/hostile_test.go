package link_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
	"muster.dev/muster/internal/sandbox/link"
)

// TestHostileRunners lets a runner that holds a task misbehave: its connection
// ends, no report is recorded, and an honest one may go on afterwards.
func TestHostileRunners(t *testing.T) {
	ref := protocol.TaskRef{Task: "t1", Fence: 7}
	log := func(offset int64, n int) func(*peer) {
		return func(r *peer) {
			_ = r.pc.SendLog(protocol.LogHeader{Offset: offset, Stream: 1}, make([]byte, n))
		}
	}
	send := func(typ protocol.Type, v any) func(*peer) {
		return func(r *peer) { _ = r.pc.Send(typ, v) }
	}
	raw := func(s string) func(*peer) { return func(r *peer) { _, _ = r.nc.Write([]byte(s)) } }
	blob := func(b protocol.Blob) func(*peer) { b.TaskRef = ref; return send(protocol.TypeBlob, b) }
	all := func(fs ...func(*peer)) func(*peer) {
		return func(r *peer) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	part := func(file uint32, at int64, n int) func(*peer) {
		return func(r *peer) {
			_ = r.pc.SendPosition(protocol.TypeBlobPart, protocol.Position{Number: file, Value: at}, make([]byte, n))
		}
	}
	many := func(n int, f func(*peer)) func(*peer) {
		return func(r *peer) {
			for range n {
				f(r)
			}
		}
	}
	cases := map[string]func(*peer){
		"garbage":                raw("GET / HTTP/1.1\r\n\r\n"),
		"huge length":            raw("\x41\xff\xff\xff\xff"),
		"log backwards":          all(log(0, 10), log(5, 10)),
		"log with a gap":         log(100, 10),
		"log without end":        func(r *peer) { flood(r) },
		"empty log":              raw("\x40\x00\x00\x00\x11" + strings.Repeat("\x00", 16) + "\x01"),
		"unknown stream":         raw("\x40\x00\x00\x00\x12" + strings.Repeat("\x00", 16) + "\x09x"),
		"heartbeats":             many(5000, func(r *peer) { _ = r.pc.SendPosition(protocol.TypeHeartbeat, protocol.Position{}, nil) }),
		"phases":                 many(20, send(protocol.TypePhase, protocol.Phase{TaskRef: ref, State: fleet.TaskRunning})),
		"wrong phase":            send(protocol.TypePhase, protocol.Phase{TaskRef: ref, State: fleet.TaskSucceeded}),
		"phase of another":       send(protocol.TypePhase, protocol.Phase{TaskRef: protocol.TaskRef{Task: "t2", Fence: 7}, State: fleet.TaskRunning}),
		"report of another":      send(protocol.TypeReport, fleet.RunReport{Task: "t2", Fence: 7}),
		"report of a fence":      send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 8}),
		"unknown field":          send(protocol.TypeReport, map[string]any{"task": "t1", "fence": 7, "admin": true}),
		"huge report":            send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7, Message: strings.Repeat("x", 1<<20)}),
		"artifact in the report": send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7, Artifacts: []fleet.Artifact{{Path: "../x"}}}),
		"absolute artifact":      blob(protocol.Blob{File: 1, Path: "/etc/passwd", Size: 1}),
		"climbing artifact":      blob(protocol.Blob{File: 1, Path: "a/../../b", Size: 1}),
		"artifact with a NUL":    blob(protocol.Blob{File: 1, Path: "a\x00b", Size: 1}),
		"negative file":          blob(protocol.Blob{File: 1, Size: -1}),
		"huge file":              blob(protocol.Blob{File: 1, Path: "a", Size: 1 << 50}),
		"many files":             many(1100, blob(protocol.Blob{File: 1, Path: "a"})),
		"file longer than said":  all(blob(protocol.Blob{File: 1, Path: "a", Size: 3}), part(1, 0, 4)),
		"part of no file":        part(1, 0, 4),
		"part of another":        all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), part(2, 0, 4)),
		"parts out of order":     all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), part(1, 4, 4)),
		"log inside a file":      all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), log(0, 1)),
		"file inside a file":     all(blob(protocol.Blob{File: 1, Path: "a", Size: 8}), blob(protocol.Blob{File: 2, Path: "b", Size: 8})),
		"output of no exec": func(r *peer) {
			_ = r.pc.SendExec(protocol.TypeExecOut, protocol.ExecHeader{ID: 9, Stream: 1}, []byte("x"))
		},
		"a host's message": send(protocol.TypeWelcome, protocol.Welcome{}),
		"ready again":      send(protocol.TypeReady, protocol.Ready{}),
		"hello again":      send(protocol.TypeHello, hello(protocol.StateReady)),
		"silence":          func(*peer) {},
	}
	for name, attack := range cases {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pipes, s *link.Session) {
				sink := &recorder{}
				r := claimed(t, p, s, sink)
				drained := make(chan struct{})
				go func() { r.ends(); close(drained) }()
				attack(r)
				select {
				case <-drained:
				case <-time.After(2 * protocol.SilenceLimit):
					t.Fatal("the connection goes on")
				}
				_ = r.pc.Close()
				synctest.Wait()
				if len(sink.done) > 0 || sink.lost != nil {
					t.Errorf("%+v, %v", sink.done, sink.lost)
				}
				// The honest one is attached where the sink is.
				h := connect(t, p, hello(protocol.StateBusy))
				var a protocol.Attach
				if typ := h.next(&a); typ != protocol.TypeAttach || a.LogOffset != sink.LogOffset() {
					t.Errorf("%s %+v", typ, a)
				}
				if err := h.pc.Send(protocol.TypeReport, fleet.RunReport{Task: "t1", Fence: 7}); err != nil {
					t.Error(err)
				}
				if typ := h.next(nil); typ != protocol.TypeReportAck {
					t.Errorf("%s instead of reportAck", typ)
				}
				if len(sink.done) != 1 {
					t.Errorf("%d reports", len(sink.done))
				}
				_ = h.pc.Close()
			})
		})
	}
}

// flood sends log far beyond the limit of the task.
func flood(r *peer) {
	buf := make([]byte, protocol.MaxChunk)
	for off := int64(0); off < 1<<30; off += int64(len(buf)) {
		if r.pc.SendLog(protocol.LogHeader{Offset: off, Stream: 1}, buf) != nil {
			return
		}
	}
}
