//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Names of what install puts into its directory.
const (
	programName = "muster-runner"
	tokenName   = "token"
)

// maxIdentity bounds the token of a pod, in bytes.
const maxIdentity = 8 << 10

// install copies this program, and the token that MUSTER_TOKEN_FILE names, to
// dir. It runs in a pod's init container, which alone can see the token; the
// runner takes it from dir before anything of the agent runs.
func install(dir string) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("open this program: %w", err)
	}
	defer func() { _ = self.Close() }()
	if err := put(filepath.Join(dir, programName), self, 0o555); err != nil {
		return err
	}
	name := os.Getenv("MUSTER_TOKEN_FILE")
	if name == "" {
		return nil
	}
	token, err := readIdentity(name)
	if err != nil {
		return err
	}
	return put(filepath.Join(dir, tokenName), strings.NewReader(token), 0o400)
}

// put writes a file whole or not at all.
func put(path string, from io.Reader, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".install-*")
	if err != nil {
		return fmt.Errorf("install %s: %w", path, err)
	}
	_, err = io.Copy(f, from)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("install %s: %w", path, err)
	}
	return nil
}

// takeIdentity reads the one-time identity and removes it. Without removing it
// the agent could read it, so that is an error.
func takeIdentity(path string) (string, error) {
	if path == "" {
		return "", errors.New("MUSTER_IDENTITY is not set: want the file with the token of this pod")
	}
	token, err := readIdentity(path)
	if e := os.Remove(path); e != nil && err == nil {
		err = fmt.Errorf("remove the identity of this sandbox, which the agent must not see: %w", e)
	}
	return token, err
}

func readIdentity(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the identity of this sandbox: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxIdentity+1))
	if err != nil {
		return "", fmt.Errorf("read the identity of this sandbox: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxIdentity {
		return "", fmt.Errorf("the identity of this sandbox, %s, has %d bytes; want 1 to %d", path, len(b), maxIdentity)
	}
	return token, nil
}
