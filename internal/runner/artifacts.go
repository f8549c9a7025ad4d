//go:build linux

package runner

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// maxVisited bounds how many names a search looks at.
const maxVisited = 1 << 20

// collector searches artifacts in the workspace.
type collector struct {
	root     *os.Root
	globs    []glob
	deadline time.Time
	visited  int
	matched  bool // anything, by the present pattern
	seen     map[string]bool
	found    []fleet.Artifact
	bytes    int64
	paths    int
	notes    []string
	skipped  map[string]int // reason → files
}

var errEnough = errors.New("enough")

// artifacts finds the task's artifacts and puts them behind the patch.
func (t *task) artifacts(deadline time.Time) {
	c := &collector{deadline: deadline, seen: map[string]bool{}, skipped: map[string]int{}}
	for _, text := range t.a.Artifacts {
		g, err := parseGlob(text)
		if err != nil {
			c.notes = append(c.notes, err.Error())
			continue
		}
		c.globs = append(c.globs, g)
	}
	t.r.a.as(func() {
		root, err := os.OpenRoot(t.r.c.Workspace)
		if err != nil {
			c.notes = append(c.notes, "the workspace cannot be opened: "+err.Error())
			return
		}
		defer func() { _ = root.Close() }()
		c.root = root
		c.search()
	})
	for _, a := range c.found {
		t.files = append(t.files, outFile{path: a.Path, size: a.Bytes, open: func() io.ReadCloser { return t.r.openArtifact(a.Path) }})
	}
	t.report.Artifacts = c.found
	t.report.ArtifactNote = c.note()
}

func (c *collector) search() {
	for _, g := range c.globs {
		c.matched = false
		err := c.walk(g)
		if errors.Is(err, errEnough) {
			return
		}
		if !c.matched {
			c.notes = append(c.notes, fmt.Sprintf("nothing matches %q", g.text))
		}
	}
}

func (c *collector) walk(g glob) error {
	return fs.WalkDir(c.root.FS(), g.base(), func(p string, d fs.DirEntry, err error) error {
		if c.visited++; c.visited > maxVisited || c.visited%256 == 0 && time.Now().After(c.deadline) {
			c.notes = append(c.notes, fmt.Sprintf("the search ended after %d names", c.visited))
			return errEnough
		}
		if err != nil {
			return nil //nolint:nilerr // cannot be read, or does not exist: nothing matches there
		}
		if d.IsDir() {
			if d.Name() == ".git" && !strings.HasPrefix(g.text, ".git") {
				return fs.SkipDir
			}
			return nil
		}
		if !g.match(p) {
			return nil
		}
		if c.matched = true; c.seen[p] {
			return nil
		}
		c.seen[p] = true
		return c.add(p)
	})
}

// add takes one file that matched.
func (c *collector) add(p string) error {
	if !utf8.ValidString(p) || len(p) > protocol.MaxArtifactPath || strings.ContainsAny(p, "\\\x7f") ||
		strings.ContainsFunc(p, func(r rune) bool { return r < ' ' }) {
		c.skipped["with a name that cannot be stored"]++
		return nil
	}
	// Follows links, but never out of the workspace.
	st, err := c.root.Stat(p)
	switch {
	case err != nil:
		c.skipped["that lead out of the workspace or nowhere, or may not be read"]++
		return nil //nolint:nilerr // it is in the note; the others are still wanted
	case st.IsDir():
		return nil // a link to a directory
	case !st.Mode().IsRegular():
		c.skipped["that are not regular files"]++
		return nil
	}
	if len(c.found) == protocol.MaxArtifacts || c.paths+len(p) > protocol.MaxArtifactPaths {
		c.notes = append(c.notes, fmt.Sprintf("only the first %d files were taken", len(c.found)))
		return errEnough
	}
	if c.bytes+st.Size() > protocol.MaxArtifactBytes {
		c.skipped[fmt.Sprintf("beyond %d MiB in all", protocol.MaxArtifactBytes>>20)]++
		return nil
	}
	c.bytes += st.Size()
	c.paths += len(p)
	c.found = append(c.found, fleet.Artifact{Path: path.Clean(p), Bytes: st.Size()})
	return nil
}

// note says what was left out.
func (c *collector) note() string {
	notes := c.notes
	var reasons []string
	for r := range c.skipped {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	for _, r := range reasons {
		notes = append(notes, fmt.Sprintf("%d skipped %s", c.skipped[r], r))
	}
	return shorten(strings.Join(notes, "; "), 1<<10)
}

// openArtifact opens a file that was found, with the agent's rights and only
// inside the workspace. What is no longer a regular file reads as empty.
func (r *Runner) openArtifact(p string) io.ReadCloser {
	var f *os.File
	r.a.as(func() {
		root, err := os.OpenRoot(r.c.Workspace)
		if err != nil {
			return
		}
		defer func() { _ = root.Close() }()
		if f, err = root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			f = nil
			return
		}
		if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
			_ = f.Close()
			f = nil
		}
	})
	if f == nil {
		return io.NopCloser(strings.NewReader(""))
	}
	return f
}
