package redis

import (
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/internal/fleet"
)

// errReply is an answer that our own scripts do not give.
var errReply = errors.New("the server's answer makes no sense")

// numbers reads n whole numbers.
func numbers(reply any, n int) ([]int64, error) {
	list, ok := reply.([]any)
	if !ok || len(list) != n {
		return nil, unexpected(reply)
	}
	out := make([]int64, n)
	for i, x := range list {
		if out[i], ok = x.(int64); !ok {
			return nil, unexpected(reply)
		}
	}
	return out, nil
}

func unexpected(reply any) error {
	return fmt.Errorf("redis: %w: %w (%T)", fleet.ErrUnavailable, errReply, reply)
}

// messages reads the answer of receive: for each message its ID, the token of
// the delivery, the attempt, the age in milliseconds or -1, and the body or the
// fields. The second result is how many bytes they are.
func (s *Source) messages(reply any, sent time.Time, visibility time.Duration) ([]fleet.Message, int, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, 0, unexpected(reply)
	}
	out, total := make([]fleet.Message, 0, len(list)), 0
	for _, x := range list {
		m, size, err := s.message(x)
		if err != nil {
			return nil, 0, err
		}
		// The server counts from later than sent: the lease holds at least as
		// long.
		m.Until = sent.Add(visibility)
		out, total = append(out, m), total+size
	}
	return out, total, nil
}

func (s *Source) message(x any) (fleet.Message, int, error) {
	parts, ok := x.([]any)
	if !ok || len(parts) != 5 {
		return fleet.Message{}, 0, unexpected(x)
	}
	id, ok1 := parts[0].(string)
	token, ok2 := parts[1].(string)
	attempt, ok3 := parts[2].(int64)
	age, ok4 := parts[3].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return fleet.Message{}, 0, unexpected(x)
	}
	m := fleet.Message{ID: id, Receipt: receipt{id, token}.String(), Attempt: max(1, int(attempt))}
	if age >= 0 {
		m.At = time.Now().Add(-milliseconds(age))
	}
	if s.cfg.List != nil {
		body, ok := parts[4].(string)
		if !ok {
			return fleet.Message{}, 0, unexpected(x)
		}
		m.Body = []byte(body)
		return m, len(body), nil
	}
	size, err := fields(&m, parts[4], s.cfg.Stream.Body)
	return m, size, err
}

// fields reads an entry's fields: one of them is the body. Of a field that is
// there twice the last counts.
func fields(m *fleet.Message, x any, body string) (int, error) {
	flat, ok := x.([]any)
	if !ok || len(flat)%2 != 0 {
		return 0, unexpected(x)
	}
	m.Body, m.Headers = []byte{}, map[string]string{}
	size := 0
	for i := 0; i < len(flat); i += 2 {
		k, ok1 := flat[i].(string)
		v, ok2 := flat[i+1].(string)
		if !ok1 || !ok2 {
			return 0, unexpected(x)
		}
		size += len(k) + len(v)
		if k == body {
			m.Body = []byte(v)
			continue
		}
		m.Headers[k] = v
	}
	return size, nil
}
