package v1alpha1

// ExecProtocol is the WebSocket subprotocol of GET /v1/tasks/{id}/exec.
//
// Text messages are [ExecMessage] in JSON; binary messages carry bytes, and
// their first byte names the stream. The client begins with "start"; the
// server ends with "exit" or "error" and closes with status 1000. Without
// "stdin" in the start message the command reads end of file at once. A
// connection lost before the end stops the command.
const ExecProtocol = "muster.exec.v1"

// MaxExecMessage bounds one message of exec in bytes, its stream byte
// included. The start message may be as long as MaxExecStart.
const (
	MaxExecMessage = 64 << 10
	MaxExecStart   = 256 << 10
)

// The first byte of a binary message of exec.
const (
	ExecStdin  byte = 0 // client to server
	ExecStdout byte = 1 // server to client
	ExecStderr byte = 2 // server to client; unused with a tty
)

// The types of a text message of exec.
const (
	ExecTypeStart      = "start"       // client: the first message
	ExecTypeStdinClose = "stdin_close" // client: end of input
	ExecTypeResize     = "resize"      // client: rows and cols; tty only
	ExecTypeExit       = "exit"        // server: code; the last message
	ExecTypeError      = "error"       // server: message and hint; the last message
)

// ExecMessage is a text message of exec.
type ExecMessage struct {
	Type    string            `json:"type"`
	Command []string          `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	TTY     bool              `json:"tty,omitempty"`
	Stdin   bool              `json:"stdin,omitempty"`
	Rows    uint16            `json:"rows,omitempty"`
	Cols    uint16            `json:"cols,omitempty"`
	Code    *int              `json:"code,omitempty"`
	Message string            `json:"message,omitempty"`
	Hint    string            `json:"hint,omitempty"`
}
