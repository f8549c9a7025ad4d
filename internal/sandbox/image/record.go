package image

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// record is what a reference resolved to.
type record struct {
	Ref         string    `json:"ref"`
	Digest      string    `json:"digest"`
	Layers      []string  `json:"layers"` // diff ids, lowest first
	Env         []string  `json:"env,omitempty"`
	User        string    `json:"user,omitempty"`
	WorkingDir  string    `json:"workingDir,omitempty"`
	At          time.Time `json:"at"`
	Fingerprint string    `json:"fingerprint,omitempty"` // of a local file
	Fixed       bool      `json:"fixed,omitempty"`       // named by digest
}

// layerNote is what is known of an unpacked layer.
type layerNote struct {
	DiffID     string `json:"diffID"`
	Bytes      int64  `json:"bytes"`
	Entries    int64  `json:"entries"`
	Devices    int64  `json:"devices,omitempty"`    // left out
	OpaqueRoot bool   `json:"opaqueRoot,omitempty"` // hides every layer below
}

// current tells whether the record may be used without asking again.
func (c *Cache) current(ref string, r record) bool {
	if r.Fingerprint != "" {
		kind, err := classify(ref)
		return err == nil && kind.fingerprint() == r.Fingerprint
	}
	age := c.o.Now().Sub(r.At)
	return r.Fixed || age >= 0 && age < c.o.Refresh
}

// assemble makes the Image of a record; false when a layer is missing.
func (c *Cache) assemble(r record) (Image, bool) {
	img := Image{
		Ref: r.Ref, Digest: r.Digest, Env: slices.Clone(r.Env), User: r.User, WorkingDir: r.WorkingDir,
		Shifted: c.form.chown, UserXattr: c.form.opaque != opaqueTrusted,
	}
	now := c.o.Now()
	for _, id := range slices.Backward(r.Layers) {
		name := c.form.name(id)
		// Marked before the look, so that Prune comes before it or lets it be.
		c.mu.Lock()
		c.used[name] = now
		c.mu.Unlock()
		note, err := c.note(name)
		if err != nil || note.DiffID != id {
			return Image{}, false
		}
		dir := c.layerDir(name)
		if _, err := os.Lstat(dir); err != nil {
			return Image{}, false
		}
		if !slices.Contains(img.Lower, dir) {
			img.Lower = append(img.Lower, dir)
		}
		if note.OpaqueRoot {
			break
		}
	}
	return img, true
}

func (c *Cache) remember(ref string, r record) {
	c.mu.Lock()
	c.known[ref] = r
	c.mu.Unlock()
}

func (c *Cache) recordPath(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return filepath.Join(c.dir, "r", hex.EncodeToString(sum[:16])+".json")
}

func (c *Cache) load(ref string) (record, bool) {
	r, ok := readRecord(c.recordPath(ref))
	return r, ok && r.Ref == ref
}

func readRecord(path string) (record, bool) {
	var r record
	b, err := os.ReadFile(path)
	return r, err == nil && json.Unmarshal(b, &r) == nil
}

func (c *Cache) store(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("note the image: %w", err)
	}
	return c.replace(c.recordPath(r.Ref), b)
}

func (c *Cache) layerDir(name string) string { return filepath.Join(c.dir, "l", name) }
func (c *Cache) notePath(name string) string { return filepath.Join(c.dir, "m", name+".json") }
func (c *Cache) lockPath(name string) string { return filepath.Join(c.dir, "k", name+".lock") }
func (c *Cache) scratchDir() string          { return filepath.Join(c.dir, "t") }
func (c *Cache) note(name string) (n layerNote, err error) {
	b, err := os.ReadFile(c.notePath(name))
	if err != nil {
		return layerNote{}, err
	}
	return n, json.Unmarshal(b, &n)
}

// replace writes a small file whole or not at all.
func (c *Cache) replace(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
