// Command render writes what is made from the chart and for it: the plain
// manifests, and the copies of resource definitions and dashboards that the
// chart carries. It is run by make manifests, at the top of the tree.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"muster.dev/muster/test/helm"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run() error {
	root := filepath.Join("..", "..")
	// The manifest holds copies, too: twice, the second time with what the first
	// has copied into the chart.
	for range 2 {
		files, err := helm.Generated(root)
		if err != nil {
			return err
		}
		for name, content := range files {
			at := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(at, content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
