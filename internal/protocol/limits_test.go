package protocol

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestNoLimitMeansNone: the deadline of a message that came does not end a
// stream that has no bound on silence from then on.
func TestNoLimitMeansNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		host := NewConn(there, Limits{})
		c := NewConn(here, Limits{ReadTimeout: 10 * time.Second})
		defer func() { _ = c.Close(); _ = host.Close() }()
		send := func() {
			if err := host.SendPosition(TypeHeartbeat, Position{Value: 1}, nil); err != nil {
				t.Error(err)
			}
		}
		go send()
		if _, _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
		c.SetLimits(Limits{})
		time.AfterFunc(time.Minute, send)
		if _, _, err := c.Receive(); err != nil {
			t.Errorf("after a silence without a bound: %v", err)
		}
	})
}
