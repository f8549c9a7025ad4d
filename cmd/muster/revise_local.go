package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/server"
)

// fleetFiles are where the specification of a fleet of this machine is.
type fleetFiles struct {
	given string // by --fleet; empty: none was
	kept  string // in the data directory: what the next start without --fleet reads
}

// all are those that the next start may read.
func (f fleetFiles) all() []string {
	if given, err := filepath.Abs(f.given); f.given == "" || err == nil && given == filepath.Clean(f.kept) {
		return []string{f.kept}
	}
	return []string{f.given, f.kept}
}

// localReviser rolls a fleet of this machine back.
type localReviser struct {
	unit   *unit
	files  fleetFiles
	shared bool // other processes lead this fleet at other times
	mu     sync.Mutex
}

// Rollback implements server.Reviser: it writes an earlier fleet, or a changed
// one.
func (l *localReviser) Rollback(ctx context.Context, o server.Order) (server.Outcome, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out server.Outcome
	next, err := checkLocal(o.Revision.Spec)
	if err != nil {
		return out, &server.StaleError{Number: o.Revision.Number, Err: err}
	}
	var live *v1alpha1.Fleet
	live, out.Awaits = l.unit.now.Load().Takeover(next)
	if l.shared {
		out.Warnings = append(out.Warnings, "other replicas of this fleet read files of their own: change those, too, or the next one that leads puts its own in force")
	}
	if o.Dry {
		return out, nil
	}
	text, err := fileOf(o.Revision)
	if err != nil {
		return out, err
	}
	if out.Kept, err = l.files.replace(text, time.Now()); err != nil {
		return out, err
	}
	if err := l.unit.update(live); err != nil {
		return out, fmt.Errorf("the file is written, and this process cannot take it over: %w", err)
	}
	out.Revision = l.unit.keepRevision(context.WithoutCancel(ctx), fleet.Revision{
		Author: apiAuthor(o.By), Source: fleet.FromAPI, Note: o.Note, Spec: o.Revision.Spec,
	})
	return out, nil
}

// checkLocal reads a fleet as a start on this machine would.
func checkLocal(src []byte) (*v1alpha1.Fleet, error) {
	f, err := checkForm(src)
	if err != nil {
		return nil, err
	}
	if err := checkMounts(f); err != nil {
		return nil, err
	}
	if _, err := tariffOf(f); err != nil { // its price file may be gone
		return nil, err
	}
	return f, nil
}

// checkForm is all of it that looks at nothing of this machine: what somebody
// only asks about must not tell them which files are there.
func checkForm(src []byte) (*v1alpha1.Fleet, error) {
	f, err := v1alpha1.ParseFleet(src)
	if err != nil {
		return nil, err
	}
	if err := f.CheckLocal(); err != nil {
		return nil, err
	}
	_, err = controlSpec(f)
	return f, err
}

// fileOf is a revision as a file.
func fileOf(r fleet.Revision) ([]byte, error) {
	text, err := yaml.JSONToYAML(r.Spec)
	if err != nil {
		return nil, fmt.Errorf("write revision %d: %w: %w", r.Number, fleet.ErrCorrupt, err)
	}
	if r.Number == 0 {
		return append([]byte("# Changed through the API; muster fleet history says by whom and how.\n# Comments and order of the file it came from are not kept.\n"), text...), nil
	}
	head := fmt.Sprintf("# Revision %d, of %s, put in force again by muster fleet rollback.\n# Comments and order of the file it came from are not kept.\n", r.Number, r.At.UTC().Format(time.RFC3339))
	return append([]byte(head), text...), nil
}

// replace writes the files, each whole or not at all, and keeps what was there
// beside them; it returns where. The one that was given comes first: where it
// cannot be written nothing is changed.
func (f fleetFiles) replace(text []byte, now time.Time) (kept []string, err error) {
	for _, path := range f.all() {
		real, err := filepath.EvalSymlinks(path) // what a link leads to is what is read
		if errors.Is(err, fs.ErrNotExist) {
			real, err = path, nil
		}
		if err != nil {
			return kept, unwritten(path, err)
		}
		old, err := keepBeside(real, now)
		if err != nil {
			return kept, unwritten(path, err)
		}
		before, _ := os.Stat(real)
		if err := writeFile(real, modeOf(real), bytes.NewReader(text)); err != nil {
			return kept, unwritten(path, err)
		}
		if before != nil {
			if st, ok := before.Sys().(*syscall.Stat_t); ok {
				_ = os.Chown(real, int(st.Uid), int(st.Gid)) // where we may; the file is whole either way
			}
		}
		if old != "" {
			kept = append(kept, old)
		}
	}
	return kept, nil
}

func modeOf(path string) os.FileMode {
	if st, err := os.Stat(path); err == nil {
		return st.Mode().Perm()
	}
	return 0o600
}

// keepBeside copies a file to one beside it; "" where there is none.
func keepBeside(path string, now time.Time) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	old := path + ".before-" + strings.ReplaceAll(now.UTC().Format("20060102T150405.000Z"), ".", "-")
	return old, writeFile(old, modeOf(path), bytes.NewReader(b))
}

// unwritten says that the fleet's file cannot be changed, and what to do.
func unwritten(path string, err error) error {
	mend := "see that muster may write it and its directory"
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EBUSY) {
		mend = "it is mounted from elsewhere: roll it back there, and start again"
	}
	return fmt.Errorf("the fleet's file %s cannot be replaced (%s): %w: %w", path, mend, fleet.ErrConflict, err)
}
