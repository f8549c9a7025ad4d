package link

import (
	"io/fs"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// maxPhases is how often a runner may report phases on one connection: three
// of them, each perhaps twice.
const maxPhases = 8

// task returns where events of the claimed task go.
func (cn *conn) task(t protocol.Type) (*claim, *inbox, error) {
	c, in := cn.bound()
	if c == nil {
		return nil, nil, protocol.Violation("%s without a task", t)
	}
	if cn.reported {
		return nil, nil, protocol.Violation("%s behind the report", t)
	}
	if cn.blobOpen && t != protocol.TypeBlobPart {
		return nil, nil, protocol.Violation("%s in the middle of file %d", t, cn.blob.File)
	}
	return c, in, nil
}

func (cn *conn) put(in *inbox, it item) error {
	if !in.push(it) {
		<-cn.gone
		return cn.err
	}
	return nil
}

func (cn *conn) onLog(payload []byte) error {
	h, data, err := protocol.ParseLog(payload)
	if err != nil {
		return err
	}
	c, in, err := cn.task(protocol.TypeLog)
	if err != nil {
		return err
	}
	if h.Offset != cn.logNext {
		return protocol.Violation("log at offset %d, not %d", h.Offset, cn.logNext)
	}
	if cn.logNext += int64(len(data)); cn.logNext > c.logLimit {
		return protocol.Violation("log of more than %d bytes", c.logLimit)
	}
	return cn.put(in, item{
		kind: itemLog, offset: h.Offset, stream: h.Stream, data: data, at: cn.clock.correct(h.At),
	})
}

func (cn *conn) onPhase(payload []byte) error {
	var p protocol.Phase
	if err := protocol.Decode(protocol.TypePhase, payload, &p); err != nil {
		return err
	}
	c, in, err := cn.task(protocol.TypePhase)
	if err != nil {
		return err
	}
	if p.TaskRef != c.ref {
		return protocol.Violation("phase of task %.64q", p.Task)
	}
	switch p.State {
	case fleet.TaskStarting, fleet.TaskRunning, fleet.TaskCollecting:
	default:
		return protocol.Violation("phase %.64q", p.State)
	}
	if cn.phases++; cn.phases > maxPhases {
		return protocol.Violation("more than %d phases", maxPhases)
	}
	return cn.put(in, item{kind: itemPhase, phase: p.State, at: cn.clock.correct(p.At)})
}

func (cn *conn) onBlob(payload []byte) error {
	var b protocol.Blob
	if err := protocol.Decode(protocol.TypeBlob, payload, &b); err != nil {
		return err
	}
	c, in, err := cn.task(protocol.TypeBlob)
	if err != nil {
		return err
	}
	if b.TaskRef != c.ref {
		return protocol.Violation("file of task %.64q", b.Task)
	}
	if err := cn.checkBlob(b); err != nil {
		return err
	}
	cn.blob, cn.blobNext, cn.blobOpen = b, 0, b.Size > 0
	return cn.put(in, item{kind: itemBlob, blob: b})
}

func (cn *conn) checkBlob(b protocol.Blob) error {
	most := int64(protocol.MaxArtifactBytes)
	if b.Path == "" {
		most = protocol.MaxPatch
	}
	if b.Size < 0 || b.Size > most {
		return protocol.Violation("file of %d bytes; the most is %d", b.Size, most)
	}
	if b.Path != "" && !ValidArtifactPath(b.Path) {
		return protocol.Violation("artifact path %.100q", b.Path)
	}
	cn.files++
	cn.bytes += b.Size
	if cn.files > protocol.MaxArtifacts+1 || cn.bytes > protocol.MaxArtifactBytes+protocol.MaxPatch {
		return protocol.Violation("more than %d files or %d bytes", protocol.MaxArtifacts, protocol.MaxArtifactBytes)
	}
	return nil
}

// ValidArtifactPath reports whether p is a relative, clean, slash-separated
// path of bounded length that can be stored below a directory as it is.
func ValidArtifactPath(p string) bool {
	if len(p) > protocol.MaxArtifactPath || !utf8.ValidString(p) || !fs.ValidPath(p) || p == "." {
		return false
	}
	for i := range len(p) {
		if p[i] < ' ' || p[i] == 0x7f || p[i] == '\\' {
			return false
		}
	}
	return true
}

func (cn *conn) onBlobPart(payload []byte) error {
	p, data, err := protocol.ParsePosition(protocol.TypeBlobPart, payload)
	if err != nil {
		return err
	}
	_, in, err := cn.task(protocol.TypeBlobPart)
	if err != nil {
		return err
	}
	if !cn.blobOpen || p.Number != cn.blob.File || p.Value != cn.blobNext {
		return protocol.Violation("part of file %d at %d", p.Number, p.Value)
	}
	cn.blobNext += int64(len(data))
	if cn.blobNext > cn.blob.Size {
		return protocol.Violation("file %d is longer than its %d bytes", p.Number, cn.blob.Size)
	}
	cn.blobOpen = cn.blobNext < cn.blob.Size
	return cn.put(in, item{kind: itemBlobPart, data: data})
}

func (cn *conn) onReport(payload []byte) error {
	r, err := protocol.DecodeReport(payload)
	if err != nil {
		return err
	}
	c, in, err := cn.task(protocol.TypeReport)
	if err != nil {
		return err
	}
	if r.Task != c.ref.Task || r.Fence != c.ref.Fence {
		return protocol.Violation("report of task %.64q/%d", r.Task, r.Fence)
	}
	for _, a := range r.Artifacts {
		if !ValidArtifactPath(a.Path) || a.Bytes < 0 {
			return protocol.Violation("artifact path %.100q", a.Path)
		}
	}
	cn.reported = true
	return cn.put(in, item{kind: itemReport, report: tidy(r)})
}

// tidy forces what a runner says into what a report may say.
func tidy(r fleet.RunReport) fleet.RunReport {
	switch r.Reason {
	case fleet.ReasonNone, fleet.ReasonExit, fleet.ReasonSetup, fleet.ReasonCommand, fleet.ReasonCancelled,
		fleet.ReasonTimeoutStartup, fleet.ReasonTimeoutRun, fleet.ReasonTimeoutIdle, fleet.ReasonTimeoutQueue,
		fleet.ReasonPids, fleet.ReasonDisk, fleet.ReasonOOM, fleet.ReasonBudget, fleet.ReasonNodeLost:
	default:
		r.Reason = fleet.ReasonExit
	}
	if r.Reason == fleet.ReasonNone && r.ExitCode != 0 {
		r.Reason = fleet.ReasonExit
	}
	r.Message = cut(r.Message, 4<<10)
	r.Signal = cut(r.Signal, 32)
	r.PatchNote = cut(r.PatchNote, 2<<10)
	r.ArtifactNote = cut(r.ArtifactNote, 2<<10)
	r.Start, r.Setup = max(r.Start, 0), max(r.Setup, 0)
	r.Run, r.Collect = max(r.Run, 0), max(r.Collect, 0)
	r.LogDropped, r.PatchBytes = max(r.LogDropped, 0), max(r.PatchBytes, 0)
	return r
}
