package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"

	"github.com/danielgtaylor/huma/v2"

	"muster.dev/muster/internal/fleet"
)

// statusError is an error whose status is known where it arises.
type statusError struct {
	status int
	text   string
	retry  int // seconds; 0: do not say
}

func (e *statusError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &statusError{status: status, text: fmt.Sprintf(format, args...)}
}

// problemOf turns an error into an answer, and says after how many seconds to
// ask again; 0 where that is of no use.
func problemOf(err error) (*huma.ErrorModel, int) {
	status, retry := kindOf(err)
	p := &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: err.Error()}
	if fields := fieldErrors(err); len(fields) > 0 {
		p.Detail = "the request is not valid"
		if len(fields) > 1 {
			p.Detail = fmt.Sprintf("%d things in the request are not valid", len(fields))
		}
		var stale *StaleError
		if errors.As(err, &stale) && stale.Number > 0 {
			p.Detail = fmt.Sprintf("revision %d does not hold any more", stale.Number)
		}
		for _, f := range fields {
			message := f.Wrong
			if f.Right != "" {
				message += "; want " + f.Right
			}
			p.Errors = append(p.Errors, &huma.ErrorDetail{Location: f.Field, Message: message})
		}
	}
	return p, retry
}

func kindOf(err error) (status, retry int) {
	var se *statusError
	switch {
	case errors.As(err, &se):
		return se.status, se.retry
	case errors.Is(err, fleet.ErrInvalid):
		return http.StatusUnprocessableEntity, 0
	case errors.Is(err, fleet.ErrNotFound):
		return http.StatusNotFound, 0
	case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrFenced):
		return http.StatusConflict, 0
	case errors.Is(err, fleet.ErrFull):
		if errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "no space left") {
			return http.StatusInsufficientStorage, 0
		}
		return http.StatusTooManyRequests, 5
	case errors.Is(err, syscall.ENOSPC):
		return http.StatusInsufficientStorage, 0
	case errors.Is(err, fleet.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, 1
	}
	return http.StatusInternalServerError, 0
}

// fieldErrors finds every FieldError in a tree of joined errors.
func fieldErrors(err error) []*fleet.FieldError {
	if f, ok := err.(*fleet.FieldError); ok { //nolint:errorlint // the tree is walked here
		return []*fleet.FieldError{f}
	}
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case interface{ Unwrap() []error }:
		var all []*fleet.FieldError
		for _, inner := range e.Unwrap() {
			all = append(all, fieldErrors(inner)...)
		}
		return all
	case interface{ Unwrap() error }:
		return fieldErrors(e.Unwrap())
	}
	return nil
}

// answer turns a handler's error into one that huma writes as a problem.
func (s *Server) answer(ctx context.Context, op string, err error) error {
	p, retry := problemOf(err)
	if p.Status == http.StatusInternalServerError && ctx.Err() == nil {
		s.Logger.Error("request failed", "operation", op, "error", err)
	}
	if retry > 0 {
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {strconv.Itoa(retry)}})
	}
	return p
}

// writeProblem answers outside huma.
func writeProblem(w http.ResponseWriter, err error) {
	p, retry := problemOf(err)
	h := w.Header()
	if retry > 0 {
		h.Set("Retry-After", strconv.Itoa(retry))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Del("Content-Disposition")
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}
