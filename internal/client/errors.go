package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Error kinds beyond those of package fleet; test with errors.Is.
var (
	// ErrUsage: the input is wrong; asking again cannot help.
	ErrUsage = fleet.ErrInvalid
	// ErrLost: the server cannot be reached now, or went away; asking again
	// may help.
	ErrLost = fleet.ErrUnavailable
	// ErrToken: the server refused the token.
	ErrToken = errors.New("token refused")
)

// Error is what went wrong in words for a person, and what to do about it.
type Error struct {
	Text    string            // what is wrong, and where
	Hint    string            // what to do; may be empty
	Kind    error             // for errors.Is; may be nil
	Problem *v1alpha1.Problem // the server's answer, where it gave one
	Cause   error
}

// Error is the text; the hint is printed apart.
func (e *Error) Error() string { return e.Text }

// Unwrap gives the cause and the kind.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Cause, e.Kind} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// connectError says why no answer came.
func (c *Client) connectError(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var dns *net.DNSError
	text := err.Error()
	switch {
	case errors.As(err, &dns):
		return &Error{
			Text: fmt.Sprintf("the name %q in %s cannot be resolved", dns.Name, c.base()), Cause: err, Kind: ErrLost,
			Hint: "check --server or $MUSTER_SERVER",
		}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return &Error{
			Text: fmt.Sprintf("no muster at %s", c.base()), Cause: err, Kind: ErrLost,
			Hint: "start it with `muster up`, or name another with --server or $MUSTER_SERVER",
		}
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return &Error{
			Text: fmt.Sprintf("the server at %s speaks http, not https", c.base()), Cause: err, Kind: ErrUsage,
			Hint: "write the address as http://" + c.base().Host,
		}
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "readLoopPeekFailLocked: %!w(<nil>)"):
		// The second is what net/http says of a server that speaks first.
		return c.strangerError("something that is not HTTP")
	case errors.Is(err, context.DeadlineExceeded), isTimeout(err):
		return &Error{
			Text: fmt.Sprintf("muster at %s did not answer in time", c.base()), Cause: err, Kind: ErrLost,
			Hint: "look at what `muster up` says, and at the machine's load",
		}
	}
	return &Error{
		Text: fmt.Sprintf("lost the connection to muster at %s: %v", c.base(), rootCause(err)), Cause: err, Kind: ErrLost,
		Hint: "see whether `muster up` still runs",
	}
}

// unreached reports that no connection was made at all.
func unreached(err error) bool {
	var dns *net.DNSError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.As(err, &dns)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// rootCause drops the layers that repeat the address and the method.
func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// strangerError says that whatever answers is no muster.
func (c *Client) strangerError(got string) error {
	return &Error{
		Text: fmt.Sprintf("what answers at %s is not muster: got %s", c.base(), got),
		Hint: "another program may hold the port (`ss -ltnp` shows it); start muster on a free one with `muster up --listen 127.0.0.1:0`, or check --server",
		Kind: fleet.ErrConflict,
	}
}

// answerError turns an answer that is not a success into words.
func (c *Client) answerError(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var p v1alpha1.Problem
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if !strings.HasSuffix(strings.TrimSpace(kind), "json") || json.Unmarshal(b, &p) != nil || p.Title == "" && p.Detail == "" {
		switch resp.StatusCode {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return &Error{Text: fmt.Sprintf("muster at %s is not ready: %s", c.base(), resp.Status), Kind: ErrLost}
		}
		return c.strangerError(resp.Status)
	}
	if p.Status == 0 {
		p.Status = resp.StatusCode
	}
	e := &Error{Text: problemText(&p), Problem: &p}
	c.classify(e, resp)
	return e
}

// problemText is the server's sentence and one line per field, as the user
// wrote the fields.
func problemText(p *v1alpha1.Problem) string {
	var b strings.Builder
	detail := p.Detail
	// The server's error kinds end its sentences; the status says the same.
	for _, kind := range []error{fleet.ErrNotFound, fleet.ErrConflict, fleet.ErrInvalid, fleet.ErrUnavailable, fleet.ErrFull} {
		detail = strings.TrimSuffix(detail, ": "+kind.Error())
	}
	if detail == "" {
		detail = p.Title
	}
	b.WriteString(detail)
	for _, f := range p.Errors {
		if f.Message == detail {
			continue
		}
		b.WriteString("\n  ")
		if f.Location != "" && !strings.HasPrefix(f.Message, f.Location) {
			b.WriteString(f.Location + ": ")
		}
		b.WriteString(f.Message)
	}
	return b.String()
}

// classify sets kind and hint by status.
func (c *Client) classify(e *Error, resp *http.Response) {
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized:
		e.Kind = ErrToken
		switch {
		case c.o.Token == "":
			e.Text = fmt.Sprintf("muster at %s wants a token, and none was found", c.base())
		case c.o.TokenFrom != "":
			e.Text = fmt.Sprintf("muster at %s refused the token from %s", c.base(), c.o.TokenFrom)
		default:
			e.Text = fmt.Sprintf("muster at %s refused the token", c.base())
		}
		e.Hint = "give the one in that server's data directory: MUSTER_TOKEN=$(cat DIR/token), or --token-file DIR/token"
	case status == http.StatusTooManyRequests:
		e.Kind = fleet.ErrFull
		e.Hint = "the queue is at its bound (spec.queue.maxBacklog); nothing accepted is lost"
		if after := resp.Header.Get("Retry-After"); after != "" {
			e.Hint += "; try again in " + after + " s"
		}
	case status == http.StatusInsufficientStorage:
		e.Kind, e.Hint = fleet.ErrFull, "free some disk space on the server; nothing accepted is lost"
	case status == http.StatusNotFound || status == http.StatusGone:
		e.Kind = fleet.ErrNotFound
	case status == http.StatusConflict:
		e.Kind = fleet.ErrConflict
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		e.Kind = ErrLost
	case status >= 400 && status < 500:
		e.Kind = ErrUsage
	default:
		e.Hint = "this is the server's fault; what it prints says more"
	}
}
