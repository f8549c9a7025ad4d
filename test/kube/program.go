package kubetest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// tool returns the path of a program that tools/install.sh builds, which is
// there already but for the first time on a machine. Test packages that run at
// the same time wait for one build: the script takes a lock.
func tool(name string) (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(here) {
		return "", fmt.Errorf("find tools/install.sh: this test was built with -trimpath; build it without")
	}
	root := filepath.Join(filepath.Dir(here), "..", "..")
	cmd := exec.Command(filepath.Join(root, "tools", "install.sh"), name)
	cmd.Dir = root
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("tools/install.sh %s: %w\n%s", name, err, said.String())
	}
	path := strings.TrimSpace(string(out))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("tools/install.sh %s: %w", name, err)
	}
	return path, nil
}
