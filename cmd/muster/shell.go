package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/term"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

// shell is what commands see of the world outside: streams, environment,
// clock, and the flags all of them share.
type shell struct {
	in     io.Reader
	out    io.Writer
	errs   io.Writer
	getenv func(string) string
	uid    int
	now    func() time.Time

	server    string // --server
	tokenFile string // --token-file
	dataDir   string // --data
	fleet     string // --fleet
}

func newShell() *shell {
	return &shell{
		in: os.Stdin, out: os.Stdout, errs: os.Stderr,
		getenv: os.Getenv, uid: os.Geteuid(), now: time.Now,
	}
}

// defaultDataDir is where `muster up` keeps everything unless told otherwise.
func defaultDataDir() string { return client.DataDir(os.Getenv, os.Geteuid()) }

// place finds the server.
func (s *shell) place() (client.Place, error) {
	p, err := client.Locate(client.Search{
		Server: s.server, TokenFile: s.tokenFile, DataDir: s.dataDir, Fleet: s.fleet, Getenv: s.getenv, UID: s.uid,
	})
	// A directory named by hand is meant: the fleet at the usual address is
	// another one.
	if err == nil && s.dataDir != "" && s.server == "" && s.getenv("MUSTER_SERVER") == "" && !p.Local {
		return p, withHint(fmt.Errorf("no muster has run on the data directory %s", s.dataDir), "start one with: muster up --data "+quoted([]string{s.dataDir}))
	}
	return p, err
}

// connect returns a client of the server in use; it does not dial.
func (s *shell) connect() (*client.Client, error) {
	p, err := s.place()
	if err != nil {
		return nil, err
	}
	o := client.Options{
		Server: p.Server, Token: p.Token, TokenFrom: p.TokenFrom,
		UserAgent: "muster/" + version(), Trace: fleet.ParseTrace(os.Getenv("TRACEPARENT"), os.Getenv("TRACESTATE")),
		Notice: func(text string) { s.note("%s", text) },
	}
	if p.Local {
		o.Relocate = func() string {
			now, _ := s.place() // unreadable for a moment: an empty address is not followed
			return now.Server
		}
	}
	return client.New(o)
}

// task connects and resolves the id a user typed.
func (s *shell) task(ctx context.Context, typed string) (*client.Client, fleet.TaskID, error) {
	c, err := s.connect()
	if err != nil {
		return nil, "", err
	}
	id, err := c.Resolve(ctx, typed)
	return c, id, err
}

// note tells the user something that is no result. What others wrote is
// escaped here.
func (s *shell) note(format string, a ...any) {
	_, _ = fmt.Fprintln(s.errs, "muster: "+terminal.EscapeLines(fmt.Sprintf(format, a...)))
}

// terminal returns the file behind a stream when it is a terminal.
func (s *shell) terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// width is that of the terminal on standard output; 0 when it is none.
func (s *shell) width() int {
	f, ok := s.terminal(s.out)
	if !ok {
		return 0
	}
	if n, err := strconv.Atoi(s.getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 80
	}
	return w
}

// colour says whether stream may be coloured; see no-color.org.
func (s *shell) colour(stream any) bool {
	_, tty := s.terminal(stream)
	return tty && s.getenv("NO_COLOR") == "" && s.getenv("TERM") != "dumb"
}
