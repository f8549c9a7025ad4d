package archive

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"sync"
	"syscall"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/archive/watch"
	"muster.dev/muster/internal/fleet"
)

// Options shape an Archive; the zero value is good.
type Options struct {
	// OpenFiles bounds the log files held open; 0: 256.
	OpenFiles int
}

// Archive is a fleet.Archive in a directory. All methods are safe for
// concurrent use.
type Archive struct {
	root *os.Root
	most int

	mu       sync.Mutex
	closed   bool
	logs     map[logKey]*logFile
	idle     *list.List // of *logFile that nobody uses now, the longest idle first
	watchers watch.Watchers[logKey]
}

type logKey struct {
	task    fleet.TaskID
	attempt int
}

func (k logKey) path() string { return path.Join(taskDir(k.task), "log."+strconv.Itoa(k.attempt)) }

const tmpDir = "tmp"

// Open opens the archive in dir, making the directory if need be, and deletes
// files that were being written when the last process ended.
func Open(dir string, o Options) (*Archive, error) {
	if o.OpenFiles <= 0 {
		o.OpenFiles = 256
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open archive: %w", kind(err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", kind(err))
	}
	if err = root.RemoveAll(tmpDir); err == nil {
		err = root.Mkdir(tmpDir, 0o700)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open archive %s: %w", dir, kind(err)), root.Close())
	}
	return &Archive{
		root: root, most: o.OpenFiles, logs: map[logKey]*logFile{}, idle: list.New(),
		watchers: watch.Watchers[logKey]{},
	}, nil
}

// Close closes the files that are open. No method may be running or be called
// afterwards.
func (a *Archive) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	var errs []error
	for _, l := range a.logs {
		errs = append(errs, l.shut())
	}
	clear(a.logs)
	return errors.Join(append(errs, a.root.Close())...)
}

// Tasks implements fleet.Archive.
func (a *Archive) Tasks(f func(fleet.TaskID) error) error {
	shards, err := fs.ReadDir(a.root.FS(), ".")
	if err != nil {
		return fmt.Errorf("archive: %w", kind(err))
	}
	for _, s := range shards {
		if s.Name() == tmpDir || !s.IsDir() {
			continue
		}
		tasks, err := fs.ReadDir(a.root.FS(), s.Name())
		if err != nil {
			return fmt.Errorf("archive: %w", kind(err))
		}
		for _, t := range tasks {
			if !fleet.ValidID("t", t.Name()) {
				continue
			}
			if err := f(fleet.TaskID(t.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove implements fleet.Archive.
func (a *Archive) Remove(id fleet.TaskID) error {
	if err := names.CheckTask(id); err != nil {
		return err
	}
	a.mu.Lock()
	for k, l := range a.logs {
		if k.task == id {
			l.removed = true
			delete(a.logs, k)
			if l.refs == 0 {
				a.drop(l)
			}
		}
	}
	for k := range a.watchers {
		if k.task == id {
			a.watchers.Wake(k)
		}
	}
	a.mu.Unlock()
	if err := a.root.RemoveAll(taskDir(id)); err != nil {
		return fmt.Errorf("remove what task %s left: %w", id, kind(err))
	}
	return nil
}

// taskDir spreads tasks over 1,024 directories by their random part.
func taskDir(id fleet.TaskID) string { return path.Join(string(id[len(id)-2:]), string(id)) }

// kind gives a file system's error its kind.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no space left on the disk of the data directory; make room: %w (%w)", fleet.ErrFull, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%w)", fleet.ErrNotFound, err)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR),
		errors.Is(err, syscall.EEXIST), errors.Is(err, syscall.ENOTEMPTY): // a file where a directory is, or the other way round
		return fmt.Errorf("%w: %w", fleet.ErrInvalid, err)
	}
	return err
}

var _ fleet.Archive = (*Archive)(nil)
