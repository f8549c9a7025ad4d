package fleet

import (
	"errors"
	"fmt"
)

// Error kinds. Adapters wrap them with %w; callers test with errors.Is.
var (
	// ErrNotFound: the named thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrConflict: a compare-and-swap lost, or an idempotency key was reused
	// with another content.
	ErrConflict = errors.New("conflict")
	// ErrFenced: the caller's fencing token is no longer the newest; whatever
	// it did must not be recorded.
	ErrFenced = errors.New("fenced: a newer attempt owns this task")
	// ErrInvalid: the input can never be accepted. See FieldError.
	ErrInvalid = errors.New("invalid")
	// ErrUnavailable: the dependency could not be reached or read; retrying
	// later may help. Never to be read as zero.
	ErrUnavailable = errors.New("unavailable")
	// ErrDenied: the dependency refuses our credentials; retrying helps once they
	// are mended. Never to be read as zero.
	ErrDenied = errors.New("denied")
	// ErrFull: a bound was reached (queue length, disk); retry later.
	ErrFull = errors.New("full")
	// ErrCorrupt: stored data cannot be trusted; nothing was overwritten.
	ErrCorrupt = errors.New("corrupt")
)

// FieldError is bad input: the path of the field, what is wrong and what
// would be right. It matches ErrInvalid.
type FieldError struct {
	Field string // path as the user wrote it: spec.templates[0].resources.memory
	Wrong string // what is wrong: "-1Gi is negative"
	Right string // what would be right: "a size such as 512Mi or 2Gi"
	Line  int    // line in the file, from 1; 0 where there is no file
}

// Error formats as "field: wrong; want right", with "line N: " before it
// where the line is known.
func (e *FieldError) Error() string {
	text := e.Field + ": " + e.Wrong
	if e.Line > 0 {
		text = fmt.Sprintf("line %d: %s", e.Line, text)
	}
	if e.Right != "" {
		text += "; want " + e.Right
	}
	return text
}

// Is reports that a FieldError is ErrInvalid.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

// ReasonError carries the Reason a task or a sandbox start ended with.
type ReasonError struct {
	Reason TaskReason
	Err    error
	// Output is the tail of the command output that explains the failure
	// (prepare, clone, setup); at most 8 KiB.
	Output string
}

func (e *ReasonError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return fmt.Sprintf("%s: %v: %s", e.Reason, e.Err, e.Output)
}

func (e *ReasonError) Unwrap() error { return e.Err }
