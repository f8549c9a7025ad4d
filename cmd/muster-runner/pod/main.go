//go:build linux

// Command pod is muster-runner for pods: it reaches its control plane over the
// network. In an image it is called muster-runner.
//
//	muster-runner install DIR   in the init container: copies itself, and the
//	                            token MUSTER_TOKEN_FILE names, to DIR
//	muster-runner               the runner
//
// Beside what internal/runner/program lists, the environment says
//
//	MUSTER_GATEWAY    https://host:port
//	MUSTER_CA         the certificate authority of the gateway, in PEM
//	MUSTER_IDENTITY   the file with the one-time identity; read and removed first
//	MUSTER_EGRESS=1   there is an allow-list proxy
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"muster.dev/muster/internal/runner"
	"muster.dev/muster/internal/runner/dialout"
	"muster.dev/muster/internal/runner/program"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "install" {
		program.Exit(install(os.Args[2]))
	}
	program.Main(connect)
}

// longestPause bounds the pauses between connections: a rollout of the control
// plane takes minutes, and its end should be noticed soon.
const longestPause = 5 * time.Second

func connect(c *runner.Config) error {
	bearer, err := takeIdentity(os.Getenv("MUSTER_IDENTITY"))
	if err != nil {
		return err
	}
	d, err := dialout.New(dialout.Options{Gateway: os.Getenv("MUSTER_GATEWAY"), CA: []byte(os.Getenv("MUSTER_CA")), Bearer: bearer})
	if err != nil {
		return err
	}
	c.Token, c.LongestPause = d.Session, longestPause
	c.Dial = func(ctx context.Context) (io.ReadWriteCloser, error) { return d.Link(ctx) }
	if os.Getenv("MUSTER_EGRESS") == "1" {
		c.Proxy = d.Egress
	}
	last := ""
	c.Disconnected = func(err error) { // to the pod's own log: nobody else hears of it
		if text := err.Error(); text != last {
			fmt.Fprintln(os.Stderr, "muster-runner:", text)
			last = text
		}
	}
	return nil
}
