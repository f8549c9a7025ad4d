package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"muster.dev/muster/internal/doctor"
	"muster.dev/muster/internal/sandbox/oci"
)

// runtimeProbe tries every runtime with a throw-away sandbox in a directory of
// its own, so that a fleet that runs here is not touched.
func runtimeProbe(runner, dataDir string) doctor.Probe {
	return func(ctx context.Context) (_ []doctor.Probed, err error) {
		runner, err = filepath.Abs(runner)
		if err != nil {
			return nil, err
		}
		dir, err := os.MkdirTemp("", "muster-doctor-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, removeProbe(dir)) }()
		found, err := oci.Probe(ctx, oci.Options{Dir: dir, Runner: runner, Bin: filepath.Join(dataDir, "bin")})
		if err != nil {
			return nil, err
		}
		var out []doctor.Probed
		for _, f := range found {
			out = append(out, doctor.Probed{Runtime: f.Runtime, Path: f.Path, Err: f.Err, Took: f.Took, Lost: f.Isolation.Lost})
		}
		return out, nil
	}
}

// removeProbe removes the directory unless something is still mounted below
// it: then its files may be the host's own.
func removeProbe(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), dir) {
		return fmt.Errorf("something is left in %s; look at `findmnt | grep %s`", dir, filepath.Base(dir))
	}
	return os.RemoveAll(dir)
}
