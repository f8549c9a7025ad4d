package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
)

// writeWhole writes a file below root so that a reader sees the old content or
// the new one whole, also after a loss of power.
func writeWhole(root *os.Root, name string, mode os.FileMode, r io.Reader) error {
	part := name + ".part"
	_ = root.Remove(part) // of a writer that was killed, or a link: what is there is not written to
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		_ = root.Remove(part)
	}
	return err
}

// writeFile writes r to a file whole or not at all.
func writeFile(path string, mode os.FileMode, r io.Reader) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return writeWhole(root, filepath.Base(path), mode, r)
}

// writePrivate writes a file that only its owner may read.
func writePrivate(path string, b []byte) error { return writeFile(path, 0o600, bytes.NewReader(b)) }
