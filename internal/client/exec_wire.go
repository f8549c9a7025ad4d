package client

// ExecProtocol is the WebSocket subprotocol of exec.
const ExecProtocol = "muster.exec.v1"

// MaxExecMessage bounds one exec message, its stream byte included.
const MaxExecMessage = 64 << 10

// The first byte of a binary exec message.
const (
	ExecStdin  byte = 0
	ExecStdout byte = 1
	ExecStderr byte = 2
)

// The types of an exec control message.
const (
	ExecStart      = "start"
	ExecStdinClose = "stdin_close"
	ExecResize     = "resize"
	ExecExit       = "exit"
	ExecError      = "error"
)

// ExecControl is a control message of exec; see the package comment for which
// fields belong to which type.
type ExecControl struct {
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
