// Package names says which tasks and files an archive takes: names come from
// sandboxes and are not trusted. It imports fleet and the standard library only.
package names

import (
	"fmt"
	"io/fs"
	"strings"

	"muster.dev/muster/internal/fleet"
)

const (
	patch     = "patch"
	artifacts = "artifacts/"
	longest   = 1024
	// longestPart is what Linux file systems take of one part of a path
	// (NAME_MAX, limits.h).
	longestPart = 255
)

// CheckTask is fleet.ErrInvalid for what is no task.
func CheckTask(id fleet.TaskID) error {
	if !fleet.ValidID("t", string(id)) {
		return fmt.Errorf("task id %q: %w", id, fleet.ErrInvalid)
	}
	return nil
}

// CheckLog is fleet.ErrInvalid for what is no attempt of a task.
func CheckLog(id fleet.TaskID, attempt int) error {
	if err := CheckTask(id); err != nil {
		return err
	}
	if attempt < 0 {
		return fmt.Errorf("attempt %d: %w", attempt, fleet.ErrInvalid)
	}
	return nil
}

// CheckFile is fleet.ErrInvalid for names that a task cannot leave.
func CheckFile(id fleet.TaskID, name string) error {
	if err := CheckTask(id); err != nil {
		return err
	}
	artifact, ok := strings.CutPrefix(name, artifacts)
	if name == patch || ok && artifact != "." && fs.ValidPath(artifact) && len(name) <= longest &&
		!strings.ContainsRune(artifact, 0) && shortParts(artifact) {
		return nil
	}
	return fmt.Errorf("file name %.100q: want %q or %q and a relative path without \"..\": %w", name, patch, artifacts, fleet.ErrInvalid)
}

func shortParts(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > longestPart {
			return false
		}
	}
	return true
}
