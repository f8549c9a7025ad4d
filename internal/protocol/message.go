package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Versions of the protocol.
const (
	Version    = 1
	MinVersion = 1
)

// Type is the kind of a frame.
type Type byte

// The frame types. Those from TypeLog on carry raw bytes behind a binary
// header, the others JSON.
const (
	TypeHello       Type = 1 + iota // runner → host: Hello
	TypeWelcome                     // host → runner: Welcome
	TypeRefuse                      // host → runner: Refuse, then the host closes
	TypeReady                       // runner → host: Ready
	TypeClaim                       // host → runner: Claim
	TypeAccepted                    // runner → host: TaskRef
	TypeRejected                    // runner → host: Rejected
	TypeAttach                      // host → runner: Attach
	TypePhase                       // runner → host: Phase
	TypeBlob                        // runner → host: Blob, opens a file
	TypeReport                      // runner → host: fleet.RunReport
	TypeReportAck                   // host → runner: TaskRef
	TypeStop                        // host → runner: Stop
	TypeExec                        // host → runner: Exec
	TypeExecControl                 // host → runner: ExecControl
	TypeExecExit                    // runner → host: ExecExit
	TypeNote                        // host → runner: Note
	controlEnd
)

// The frame types with raw bytes.
const (
	TypeLog       Type = 64 + iota // runner → host: LogHeader and data
	TypeLogAck                     // host → runner: Position{0, stored up to}
	TypeBlobPart                   // runner → host: Position{file, offset} and data
	TypeBlobAck                    // host → runner: Position{file, consumed up to}; BlobStored when stored
	TypeHeartbeat                  // runner → host: Position{0, unix nanoseconds}
	TypeExecOut                    // runner → host: ExecHeader and data
	TypeExecIn                     // host → runner: ExecHeader and data
	TypeExecAck                    // either: Position{exec, consumed up to} of what the other sent
	rawEnd
)

var typeNames = map[Type]string{
	TypeHello: "hello", TypeWelcome: "welcome", TypeRefuse: "refuse", TypeReady: "ready",
	TypeClaim: "claim", TypeAccepted: "accepted", TypeRejected: "rejected", TypeAttach: "attach",
	TypePhase: "phase", TypeBlob: "blob", TypeReport: "report", TypeReportAck: "reportAck",
	TypeStop: "stop", TypeExec: "exec", TypeExecControl: "execControl", TypeExecExit: "execExit",
	TypeNote: "note",
	TypeLog:  "log", TypeLogAck: "logAck", TypeBlobPart: "blobPart", TypeBlobAck: "blobAck",
	TypeHeartbeat: "heartbeat", TypeExecOut: "execOut", TypeExecIn: "execIn", TypeExecAck: "execAck",
}

// String names the type.
func (t Type) String() string {
	if n, ok := typeNames[t]; ok {
		return n
	}
	return fmt.Sprintf("type %d", byte(t))
}

func (t Type) control() bool { return t >= TypeHello && t < controlEnd }
func (t Type) known() bool   { return t.control() || t >= TypeLog && t < rawEnd }

// State is what a runner is doing.
type State string

// The states of a runner.
const (
	StateNew       State = "new"       // nothing done yet
	StatePreparing State = "preparing" // running the template's prepare commands
	StateReady     State = "ready"     // waiting for a claim
	StateFailed    State = "failed"    // prepare failed
	StateBusy      State = "busy"      // holds a task
	StateDone      State = "done"      // holds the report of a task
)

// Limits both sides keep, so that one can hold the other to them.
const (
	// LogWindow is the most log bytes sent and not acknowledged.
	LogWindow = 256 << 10
	// BlobWindow is the most file bytes sent and not acknowledged.
	BlobWindow = 128 << 10
	// ExecWindow is the most exec bytes sent, per direction, and not
	// acknowledged.
	ExecWindow = 64 << 10
	// MaxExecs is the most exec sessions of one sandbox at once.
	MaxExecs = 8
	// MaxPatch is the most bytes of a patch.
	MaxPatch = 64 << 20
	// MaxArtifacts and MaxArtifactBytes bound the files of one task.
	MaxArtifacts     = 1000
	MaxArtifactBytes = 1 << 30
	// MaxArtifactPath is the most bytes of the path of one artifact, and
	// MaxArtifactPaths of all together.
	MaxArtifactPath  = 1 << 10
	MaxArtifactPaths = 128 << 10
	// LogSlack is how far Muster's own notes may exceed the log limit.
	LogSlack = 64 << 10
	// MaxFromRunner is the largest control message of a runner, MaxFromHost of
	// the host (a claim with its prompt and environment).
	MaxFromRunner = 384 << 10
	MaxFromHost   = 8 << 20
	// MaxOutput is the most output kept of a command that failed.
	MaxOutput = 8 << 10
)

// Rhythm of heartbeats and the bounds on silence.
const (
	HeartbeatBusy    = time.Second
	HeartbeatIdle    = 10 * time.Second
	SilenceLimit     = 35 * time.Second // then the connection counts as broken
	HandshakeTimeout = 10 * time.Second
	WriteTimeout     = 20 * time.Second
)

// Hello opens a connection.
type Hello struct {
	Magic   string       `json:"magic"` // "muster-runner"
	Version int          `json:"version"`
	Token   string       `json:"token"`
	State   State        `json:"state"`
	Task    fleet.TaskID `json:"task,omitempty"`
	Fence   int64        `json:"fence,omitempty"`
	// LogFrom is the earliest log offset the runner can still send.
	LogFrom int64 `json:"logFrom,omitempty"`
	Now     int64 `json:"now"` // the runner's clock, unix nanoseconds
	// Lost lists protections this sandbox cannot give, in words.
	Lost []string `json:"lost,omitempty"`
}

// Magic is what Hello.Magic must say.
const Magic = "muster-runner"

// Welcome answers Hello.
type Welcome struct {
	Version int               `json:"version"`
	Prepare []string          `json:"prepare,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	Startup time.Duration     `json:"startup,omitempty"` // bound of prepare; 0: none
}

// Refuse says why the host closes.
type Refuse struct {
	Why string `json:"why"`
}

// Ready says that prepare is done, or why it failed (Reason not empty).
type Ready struct {
	Reason fleet.TaskReason `json:"reason,omitempty"`
	Error  string           `json:"error,omitempty"`
	Output string           `json:"output,omitempty"`
}

// TaskRef names an attempt of a task.
type TaskRef struct {
	Task  fleet.TaskID `json:"task"`
	Fence int64        `json:"fence"`
}

// Claim hands a task over. Its log begins at LogOffset.
type Claim struct {
	Assignment fleet.Assignment `json:"assignment"`
	LogOffset  int64            `json:"logOffset,omitempty"`
}

// Rejected says why a claim was not taken.
type Rejected struct {
	TaskRef
	Why string `json:"why"`
}

// Attach asks for everything of a task from LogOffset on.
type Attach struct {
	TaskRef
	LogOffset int64 `json:"logOffset"`
}

// Phase says when the task entered a state.
type Phase struct {
	TaskRef
	State fleet.TaskState `json:"state"`
	At    int64           `json:"at"` // the runner's clock, unix nanoseconds
}

// Blob opens a file: the patch when Path is empty, else an artifact. Its bytes
// follow as blobPart frames with the same File number.
type Blob struct {
	TaskRef
	File uint32 `json:"file"`
	Path string `json:"path,omitempty"`
	Size int64  `json:"size"`
}

// BlobStored is the position of the last blobAck of a file.
const BlobStored = int64(-1)

// Stop ends the task.
type Stop struct {
	TaskRef
	Reason fleet.TaskReason `json:"reason"`
	Grace  time.Duration    `json:"grace"`
}

// Exec starts a command beside the task.
type Exec struct {
	ID      uint32            `json:"id"`
	Command []string          `json:"command"`
	Env     map[string]string `json:"env,omitempty"`
	TTY     bool              `json:"tty,omitempty"`
	Rows    uint16            `json:"rows,omitempty"`
	Cols    uint16            `json:"cols,omitempty"`
	Stdin   bool              `json:"stdin,omitempty"` // stdin follows
}

// ExecControl changes a running exec; exactly one of its parts is set.
type ExecControl struct {
	ID   uint32 `json:"id"`
	EOF  bool   `json:"eof,omitempty"`  // no more stdin
	Kill bool   `json:"kill,omitempty"` // end it now
	Rows uint16 `json:"rows,omitempty"`
	Cols uint16 `json:"cols,omitempty"`
}

// ExecExit ends an exec. Error is set when it could not be started.
type ExecExit struct {
	ID    uint32 `json:"id"`
	Code  int    `json:"code"` // 128+n when killed by signal n
	Error string `json:"error,omitempty"`
}

// Note is a line for the task's log, written as Muster's own where it belongs
// in time: the log's offsets are the runner's to give. The runner drops it when
// it has no task or no room.
type Note struct {
	Text string `json:"text"`
}

// Send writes a control message, in parts where it is large.
func (c *Conn) Send(t Type, message any) error {
	if !t.control() {
		return fmt.Errorf("send %s: not a control message", t)
	}
	b, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for len(b) > MaxChunk {
		if err := c.writeLocked(byte(t)|partFlag, MaxChunk, [][]byte{b[:MaxChunk]}); err != nil {
			return err
		}
		b = b[MaxChunk:]
	}
	return c.writeLocked(byte(t), len(b), [][]byte{b})
}

// Decode reads the JSON of a control message strictly: no unknown fields,
// nothing behind the object.
func Decode(t Type, payload []byte, message any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(message); err != nil {
		return Violation("%s: %v", t, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Violation("%s: bytes behind the message", t)
	}
	return nil
}

// DecodeLoose is Decode for hello and welcome, which later versions may
// extend.
func DecodeLoose(t Type, payload []byte, message any) error {
	if err := json.Unmarshal(payload, message); err != nil {
		return Violation("%s: %v", t, err)
	}
	return nil
}

// DecodeReport is Decode for a report, refusing one with more artifacts than
// allowed before they take memory.
func DecodeReport(payload []byte) (fleet.RunReport, error) {
	var r fleet.RunReport
	// Each artifact is one object. Braces in strings count too; names may
	// hold a few.
	if n := bytes.Count(payload, []byte("{")); n > 8*MaxArtifacts {
		return r, Violation("report with %d objects; the most artifacts is %d", n, MaxArtifacts)
	}
	if err := Decode(TypeReport, payload, &r); err != nil {
		return r, err
	}
	if len(r.Artifacts) > MaxArtifacts {
		return r, Violation("report with %d artifacts; the most is %d", len(r.Artifacts), MaxArtifacts)
	}
	return r, nil
}
