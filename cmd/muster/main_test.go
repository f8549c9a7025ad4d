package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"muster.dev/muster/internal/forecast/forecasttest"
)

func TestMain(m *testing.M) {
	if os.Getenv("BE_MUSTER") != "" { // see onTerminal
		main()
	}
	testscript.Main(m, map[string]func(){"muster": main})
}

// TestScripts runs testdata/script. Scripts whose name begins with
// "server_" have a fleet of fake sandboxes behind $MUSTER_SERVER.
func TestScripts(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	files, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MUSTER_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("NO_COLOR", "1")
			env.Setenv("STRANGER", stranger.URL)
			env.Setenv("NOBODY", "http://"+nobody(t))
			if err := os.WriteFile(filepath.Join(env.WorkDir, "raw.golden"), []byte("\x1b]0;owned\x07\x00\xff"), 0o600); err != nil {
				return err
			}
			if !strings.HasPrefix(filepath.Base(env.WorkDir), "script-server_") {
				return nil
			}
			return setUpServer(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "maybe": maybe, "seen": seen, "trace": writeWeeks,
		},
	})
}

// writeWeeks is the command `trace WEEKS FILE`: it writes the tasks of a fleet with a known week (see
// forecasttest.Load), from Monday 2026-01-05.
func writeWeeks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: trace WEEKS FILE")
	}
	weeks, err := strconv.Atoi(args[0])
	ts.Check(err)
	var b strings.Builder
	b.WriteString("arrival_unix_seconds,duration_seconds,class\n")
	for _, t := range forecasttest.Load(1, time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC), weeks) {
		fmt.Fprintf(&b, "%d,%.0f,ok\n", t.At.Unix(), t.Length.Seconds())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
}

// nobody is an address nothing listens on.
func nobody(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// exits N COMMAND… runs a command that must exit with N; written with "!" as
// it does not succeed.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if !neg || len(args) < 2 {
		ts.Fatalf("usage: ! exits CODE COMMAND ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var e *exec.ExitError
	switch {
	case err == nil:
		ts.Fatalf("exit code 0, want %d", want)
	case !errors.As(err, &e):
		ts.Check(err)
	case e.ExitCode() != want:
		ts.Fatalf("exit code %d, want %d", e.ExitCode(), want)
	}
}

// maybe COMMAND… runs a command whose exit code depends on the machine.
func maybe(ts *testscript.TestScript, _ bool, args []string) {
	_ = ts.Exec(args[0], args[1:]...)
}

// seen COMMAND… -- TEXT runs a command again and again until its standard
// output holds text.
func seen(ts *testscript.TestScript, neg bool, args []string) {
	cut := slices.Index(args, "--")
	if neg || cut < 1 || cut != len(args)-2 {
		ts.Fatalf("usage: seen COMMAND ARG… -- TEXT")
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ts.Exec(args[0], args[1:cut]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[cut+1]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q was not seen within 20 s: %v", args[cut+1], err)
		}
		time.Sleep(20 * time.Millisecond) // another process is waited for
	}
}
