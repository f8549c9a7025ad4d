package protocol_test

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"muster.dev/muster/internal/protocol"
)

// A connection that no longer bounds its reads keeps none of the bound before:
// idle runners would lose it ten seconds after each handshake.
func TestABoundOnReadsEndsWithItsLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		host, runner := protocol.NewConn(a, protocol.Limits{}), protocol.NewConn(b, protocol.Limits{ReadTimeout: protocol.HandshakeTimeout})
		defer func() { _ = host.Close() }()
		defer func() { _ = runner.Close() }()
		go func() {
			_ = host.Send(protocol.TypeWelcome, protocol.Welcome{})
			time.Sleep(time.Hour)
			_ = host.Send(protocol.TypeWelcome, protocol.Welcome{})
		}()
		if _, _, err := runner.Receive(); err != nil {
			t.Fatal(err)
		}
		runner.SetLimits(protocol.Limits{})
		if _, _, err := runner.Receive(); err != nil {
			t.Fatalf("an hour after the last frame: %v", err)
		}
	})
}
