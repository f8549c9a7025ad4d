// Package secret resolves names to values at claim time (an adapter of
// fleet.Secrets): from a directory with one file per secret, and from the
// control plane's environment. Values are read anew each time, so that a
// rotated secret is used by the next task; they are never logged and never
// part of an error. It imports package fleet only.
package secret

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"syscall"

	"muster.dev/muster/internal/fleet"
)

// MaxBytes bounds one value.
const MaxBytes = 256 << 10

// EnvPrefix stands before the name of a secret in the environment.
const EnvPrefix = "MUSTER_SECRET_"

var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,127}$`)

// Source reads secrets. The zero value knows none.
type Source struct {
	Dir string                      // "" for none
	Env func(string) (string, bool) // nil for none; os.LookupEnv
}

// Secret looks in the directory, then in the environment. One trailing
// newline of a file is not part of the value.
func (s Source) Secret(_ context.Context, name string) (string, error) {
	if !validName.MatchString(name) {
		return "", &fleet.FieldError{Field: "secrets", Wrong: fmt.Sprintf("%q is not a name", name), Right: "letters, digits and _ . -, a letter or _ first"}
	}
	if s.Dir != "" {
		v, err := s.file(name)
		if !errors.Is(err, os.ErrNotExist) {
			return v, err
		}
	}
	if s.Env != nil {
		if v, ok := s.Env(EnvPrefix + name); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("secret %q: %w", name, fleet.ErrNotFound)
}

func (s Source) file(name string) (string, error) {
	root, err := os.OpenRoot(s.Dir) // a link may not lead out of it
	if err != nil {
		// Not as ErrNotExist: that is for one secret.
		return "", fmt.Errorf("the directory of secrets cannot be opened (%s); make it, or change spec.secrets.dir: %w", err.Error(), fleet.ErrUnavailable)
	}
	defer root.Close()
	if st, err := root.Stat("."); err != nil || st.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("the directory of secrets %s may be written by others; chmod 700 it: %w", s.Dir, fleet.ErrInvalid)
	}
	// Without O_NONBLOCK a named pipe would hold us until someone writes.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("secret %q: %w; it must be a file that muster may read, and no link out of %s", name, err, s.Dir)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("secret %q is not a regular file: %w", name, fleet.ErrInvalid)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("secret %q may be read by others (mode %04o); chmod 600 it: %w", name, st.Mode().Perm(), fleet.ErrInvalid)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return "", fmt.Errorf("read secret %q: %w", name, err)
	}
	if len(b) > MaxBytes {
		return "", fmt.Errorf("secret %q is larger than %d bytes: %w", name, MaxBytes, fleet.ErrInvalid)
	}
	if strings.IndexByte(string(b), 0) >= 0 {
		return "", fmt.Errorf("secret %q holds a NUL byte and cannot be an environment variable: %w", name, fleet.ErrInvalid)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}
