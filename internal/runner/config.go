//go:build linux

package runner

import (
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"
)

// Config of a runner.
type Config struct {
	// Dial connects to the control plane. An error that wraps ErrRefused ends
	// the runner; after any other it tries again.
	Dial func(context.Context) (io.ReadWriteCloser, error)
	// Token is what the runner shows, asked after each Dial.
	Token func() string
	// LongestPause bounds the growing pauses between connections; 0: a second.
	LongestPause time.Duration
	// Disconnected is told why there is no connection; may be nil.
	Disconnected func(error)
	// UID and GID are the agent's; used with Isolate.
	UID, GID  int
	Home      string // of the agent
	Workspace string // its working directory
	Temp      string // where it may write besides; /tmp when empty
	// Proxy connects to the allow-list proxy; nil: no network.
	Proxy func(context.Context) (net.Conn, error)
	// Scope says what the runner reaps, and kills when the task ends.
	Scope Scope
	// Isolate makes it drop the agent's rights: user, capabilities. Run then
	// takes its thread with it.
	Isolate bool
	// SameUID says that the agent is meant to have the runner's own user, as
	// where nothing may change it. UID and GID are not used then.
	SameUID bool
}

// Scope is how far the runner's hand reaches.
type Scope int

// The scopes.
const (
	ScopeGroups   Scope = iota // the process groups it started (tests)
	ScopeChildren              // its descendants; orphans come to it (a subreaper)
	ScopeAll                   // every process: it is pid 1
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environ is the environment of the agent: defaults, then each layer over the
// ones before, then what is Muster's own.
func (r *Runner) environ(own map[string]string, layers ...map[string]string) []string {
	env := map[string]string{
		"PATH": defaultPath, "HOME": r.c.Home, "USER": "agent", "LOGNAME": "agent",
		"SHELL": "/bin/sh", "LANG": "C.UTF-8",
	}
	for _, l := range layers {
		maps.Copy(env, l)
	}
	env["MUSTER_WORKSPACE"] = r.c.Workspace
	if r.proxyPort > 0 {
		proxy := "http://127.0.0.1:" + strconv.Itoa(r.proxyPort)
		const direct = "localhost,127.0.0.1,::1"
		maps.Copy(env, map[string]string{
			"HTTPS_PROXY": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "http_proxy": proxy,
			"NO_PROXY": direct, "no_proxy": direct,
			"NODE_USE_ENV_PROXY": "1", // node 22.21+ and 24+ read the variables above only with it
		})
	}
	maps.Copy(env, own)
	list := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}
