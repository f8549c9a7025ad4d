package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/fake"
)

// act plays a task in a fake sandbox: the first word of the command says what
// happens.
func act(ctx context.Context, r *fake.Run) fleet.RunReport {
	command := r.Assignment.Command
	if command[0] == "absent" {
		return fleet.RunReport{Reason: fleet.ReasonCommand, ExitCode: 127, Message: "absent: no such file or directory"}
	}
	r.Running()
	args := strings.Join(command[1:], " ")
	switch command[0] {
	case "echo":
		r.Print(fleet.StreamStdout, args+"\n")
	case "env":
		for _, k := range sortedKeys(r.Assignment.Env) {
			if !strings.HasPrefix(k, "MUSTER_") {
				r.Print(fleet.StreamStdout, k+"="+r.Assignment.Env[k]+"\n")
			}
		}
		r.Print(fleet.StreamStdout, "prompt="+r.Assignment.Prompt+"\n")
	case "mixed":
		r.Print(fleet.StreamStdout, "to out\n")
		r.Print(fleet.StreamStderr, "to err\n")
		r.Print(fleet.StreamSystem, "log limit reached\n")
	case "raw":
		r.Print(fleet.StreamStdout, "\x1b]0;owned\x07\x00\xff")
	case "exit":
		code, _ := strconv.Atoi(command[1])
		return fleet.RunReport{ExitCode: code, Message: fmt.Sprintf("the command exited with %d", code)}
	case "signal":
		return fleet.RunReport{ExitCode: -1, Signal: command[1], Message: "killed by " + command[1]}
	case "patch":
		r.Collecting()
		r.Patch([]byte("diff --git a/f b/f\n+new\n"))
	case "artifacts":
		r.Collecting()
		r.Artifact("dist/app.txt", []byte("an app\n"))
		r.Artifact("report.txt", []byte("fine\n"))
	case "sleep":
		r.Print(fleet.StreamStdout, "up\n")
		d, err := time.ParseDuration(command[1])
		if err != nil {
			return fleet.RunReport{ExitCode: 2, Message: err.Error()}
		}
		if err := r.Sleep(ctx, d); err != nil {
			return fleet.RunReport{ExitCode: -1, Signal: "SIGTERM"}
		}
	}
	return fleet.RunReport{}
}

// actExec plays exec.
func actExec(_ context.Context, _ fleet.SandboxSpec, r fleet.ExecRequest) (int, error) {
	switch r.Command[0] {
	case "cat":
		if r.Stdin == nil {
			return 0, nil
		}
		_, err := io.Copy(r.Stdout, r.Stdin)
		return 0, err
	case "exit":
		code, err := strconv.Atoi(r.Command[1])
		_, _ = fmt.Fprintf(r.Stderr, "leaving with %d\n", code)
		return code, err
	case "keys":
		_, _ = io.WriteString(r.Stdout, "ready")
		var got []byte
		for b := make([]byte, 16); len(got) < 3; {
			n, err := r.Stdin.Read(b)
			if got = append(got, b[:n]...); err != nil {
				return 1, err
			}
		}
		_, err := fmt.Fprintf(r.Stdout, "%q", got)
		return 0, err
	case "absent":
		return -1, errors.New("absent: no such file or directory")
	}
	_, err := fmt.Fprintf(r.Stdout, "%s tty=%t %dx%d %v\n", strings.Join(r.Command, " "), r.TTY, r.Rows, r.Cols, r.Env)
	return 0, err
}

// oneNode is a machine that takes whatever comes.
type oneNode struct{}

var _ fleet.Nodes = oneNode{}

func (oneNode) List(context.Context) ([]fleet.Node, error) {
	return []fleet.Node{{
		ID: "here", State: fleet.NodeReady, MilliCPU: 64_000, MemoryBytes: 256 << 30, DiskBytes: 1 << 40, Slots: 64,
	}}, nil
}
func (oneNode) Scale(context.Context, int) error             { return fleet.ErrInvalid }
func (oneNode) Cordon(context.Context, fleet.NodeID) error   { return nil }
func (oneNode) Uncordon(context.Context, fleet.NodeID) error { return nil }
func (oneNode) Release(context.Context, fleet.NodeID) error  { return nil }
