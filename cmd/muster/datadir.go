package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// chosenDataDir is the data directory a command means.
func chosenDataDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = defaultDataDir()
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return dir, nil
}

// existingDataDir chooses a data directory that must be there: a mistyped one
// is not made and then found empty.
func existingDataDir(flag string) (string, error) {
	dir, err := chosenDataDir(flag)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return "", withHint(fmt.Errorf("there is no data directory %s", dir), "name the one `muster up` used with --data or $MUSTER_HOME")
	} else if err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return dir, nil
}

// prepareDataDir chooses the data directory and makes it, private to its owner.
func prepareDataDir(flag string) (string, error) {
	dir, err := chosenDataDir(flag)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return dir, nil
}

// loadToken reads the API token, making one on the first start.
func loadToken(dir string) (string, error) {
	path := filepath.Join(dir, "token")
	b, err := os.ReadFile(path)
	if err == nil {
		tok := strings.TrimSpace(string(b))
		if len(tok) < 32 {
			return "", fmt.Errorf("the token in %s has %d characters; want at least 32: delete the file to get a new one", path, len(tok))
		}
		return tok, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("read the token: %w", err)
	}
	var raw [24]byte
	_, _ = rand.Read(raw[:]) // never fails
	tok := hex.EncodeToString(raw[:])
	if err := writePrivate(path, []byte(tok+"\n")); err != nil {
		return "", fmt.Errorf("write the token: %w", err)
	}
	return tok, nil
}
