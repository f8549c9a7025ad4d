package archive

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/fleet"
)

// PutFile implements fleet.Archive.
func (a *Archive) PutFile(id fleet.TaskID, name string, r io.Reader) (int64, error) {
	if err := names.CheckFile(id, name); err != nil {
		return 0, fmt.Errorf("store file: %w", err)
	}
	n, err := a.putFile(path.Join(taskDir(id), name), r)
	if err != nil {
		return 0, fmt.Errorf("store %s of task %s: %w", name, id, err)
	}
	return n, nil
}

func (a *Archive) putFile(to string, r io.Reader) (n int64, err error) {
	tmp := path.Join(tmpDir, rand.Text())
	f, err := a.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, kind(err)
	}
	n, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = a.root.MkdirAll(path.Dir(to), 0o700)
	}
	if err == nil {
		err = a.root.Rename(tmp, to)
	}
	if err != nil {
		return 0, kind(errors.Join(err, a.root.Remove(tmp)))
	}
	return n, kind(a.syncDir(path.Dir(to)))
}

func (a *Archive) syncDir(dir string) error {
	d, err := a.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// OpenFile implements fleet.Archive.
func (a *Archive) OpenFile(id fleet.TaskID, name string) (io.ReadSeekCloser, error) {
	if err := names.CheckFile(id, name); err != nil {
		return nil, fmt.Errorf("open file: %w", err)
	}
	f, err := a.root.Open(path.Join(taskDir(id), name))
	if err != nil {
		return nil, fmt.Errorf("open %s of task %s: %w", name, id, kind(err))
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s of task %s: %w", name, id, kind(err)), f.Close())
	}
	return f, nil
}
