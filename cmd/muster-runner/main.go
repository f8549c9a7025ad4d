//go:build linux

// Command muster-runner is the process inside a sandbox of this machine. It is
// configured by the environment of the sandbox's first process (see
// internal/runner/program) and has no options for people.
//
//	MUSTER_SOCKET         unix socket of the control plane
//	MUSTER_TOKEN          what to show there
//	MUSTER_PROXY_SOCKET   unix socket of the allow-list proxy; empty: none
package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/runner/program"
)

func main() { program.Main(connect) }

func connect(c *runner.Config) error {
	socket, token, proxy := os.Getenv("MUSTER_SOCKET"), os.Getenv("MUSTER_TOKEN"), os.Getenv("MUSTER_PROXY_SOCKET")
	if os.Getenv("MUSTER_GATEWAY") != "" {
		return errors.New("MUSTER_GATEWAY is set, and this is the runner for sandboxes of one machine: in a pod start the one built from cmd/muster-runner/pod")
	}
	if socket == "" || token == "" {
		return errors.New("MUSTER_SOCKET and MUSTER_TOKEN are not set: this program is started by muster, inside a sandbox")
	}
	c.Token = func() string { return token }
	c.Dial = func(ctx context.Context) (io.ReadWriteCloser, error) { return dial(ctx, socket) }
	if proxy != "" {
		c.Proxy = func(ctx context.Context) (net.Conn, error) { return dial(ctx, proxy) }
	}
	return nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "unix", path)
}
