package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"muster.dev/muster/internal/fleet"
)

const recordName = "sandbox.json"

// record is what a later process needs to adopt or remove a sandbox. It is
// written before anything is made, and again when the container runs.
type record struct {
	Spec     fleet.SandboxSpec `json:"spec"`
	Runtime  fleet.Runtime     `json:"runtime"`
	Token    string            `json:"token"`
	Base     int               `json:"base"`   // first host id; 0 in rootless mode
	Cgroup   string            `json:"cgroup"` // empty: none
	Volume   string            `json:"volume"`
	Init     process           `json:"init"` // zero while starting
	Env      map[string]string `json:"env,omitempty"`
	Lost     []string          `json:"lost,omitempty"`
	Began    time.Time         `json:"began"`
	Rootless bool              `json:"rootless,omitempty"`
	Lower    []string          `json:"lower,omitempty"` // layers of its image
}

// write replaces the record in dir at once. It is not synced: what a power
// cut loses here it has killed as well.
func (r *record) write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	tmp := filepath.Join(dir, recordName+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordName)); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return r, fmt.Errorf("read record: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read record: %w: %w", fleet.ErrCorrupt, err)
	}
	return r, nil
}
