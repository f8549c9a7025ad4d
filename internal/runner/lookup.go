//go:build linux

package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"muster.dev/muster/internal/fleet"
)

// candidates lists the files a command name may mean, as a shell would look.
func candidates(name, dir string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	var list []string
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		file := filepath.Join(d, name)
		st, err := os.Stat(file)
		switch {
		case err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0:
			list = append(list, file)
		case errors.Is(err, fs.ErrPermission):
			list = append(list, file) // the agent may see more than the runner
		}
	}
	return list
}

// exec starts c, looking its program up in the PATH of its environment.
func (a *agent) exec(c command) (*process, error) {
	err := error(syscall.ENOENT)
	for _, file := range candidates(c.argv[0], c.dir, c.env) {
		c.path = file
		p, e := a.start(c)
		if e == nil {
			return p, nil
		}
		if err = e; !errors.Is(e, syscall.EACCES) && !errors.Is(e, syscall.ENOENT) {
			break
		}
	}
	return nil, &startError{name: c.argv[0], dir: c.dir, err: err}
}

// startError says that a program could not be executed.
type startError struct {
	name string
	dir  string
	err  error
}

func (e *startError) Unwrap() error { return e.err }

func (e *startError) Error() string {
	switch {
	case errors.Is(e.err, syscall.ENOENT):
		if st, err := os.Stat(e.dir); err != nil || !st.IsDir() {
			return fmt.Sprintf("%s: the working directory %s does not exist", e.name, e.dir)
		}
		if strings.Contains(e.name, "/") {
			if _, err := os.Stat(e.file()); err == nil {
				return fmt.Sprintf("%s: the interpreter in its first line, or its loader, does not exist in the sandbox", e.name)
			}
			return fmt.Sprintf("%s: no such file in the sandbox", e.name)
		}
		return fmt.Sprintf("%s: not found on the PATH of the sandbox", e.name)
	case errors.Is(e.err, syscall.EACCES):
		return fmt.Sprintf("%s: permission denied: not an executable file, or in a directory the agent may not enter", e.name)
	case errors.Is(e.err, syscall.ENOEXEC):
		return fmt.Sprintf("%s: not a program: a script needs a first line such as #!/bin/sh", e.name)
	case errors.Is(e.err, syscall.E2BIG):
		return fmt.Sprintf("%s: arguments and environment are too large (one may have 128 KiB)", e.name)
	case errors.Is(e.err, syscall.EAGAIN):
		return fmt.Sprintf("%s: the limit on processes (resources.pids) is reached", e.name)
	}
	return fmt.Sprintf("%s: %v", e.name, e.err)
}

func (e *startError) file() string {
	if filepath.IsAbs(e.name) {
		return e.name
	}
	return filepath.Join(e.dir, e.name)
}

// code is the exit code a shell would give, and the reason of the task.
func (e *startError) code() (int, fleet.TaskReason) {
	switch {
	case errors.Is(e.err, syscall.ENOENT), errors.Is(e.err, syscall.ENOTDIR):
		return 127, fleet.ReasonCommand
	case errors.Is(e.err, syscall.EAGAIN):
		return 126, fleet.ReasonPids
	}
	return 126, fleet.ReasonCommand
}

// asStart reports whether err says that a program could not be executed.
func asStart(err error, target **startError) bool { return errors.As(err, target) }
