// Package payload makes a task of a message of an outside queue, as
// spec.queue.payload of the fleet says: the message is a task (JSON or YAML), or
// is the input of a given task, or an expression makes the task (expr-lang.org,
// which can neither loop for ever nor reach anything outside its inputs). What
// cannot be read is a *fleet.FieldError or wraps fleet.ErrInvalid, with the
// reason for a person.
//
// It is pure but for the clock it is given. It may import fleet, api/v1alpha1
// and the expression library.
package payload
