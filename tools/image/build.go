package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// programs are what the image holds, in the order of their layers: the one
// that changes less often first. The runner is the one for pods; sandboxes of
// one machine are not started from an image.
var programs = []struct{ name, pkg string }{
	{"muster-runner", "./cmd/muster-runner/pod"},
	{"muster", "./cmd/muster"},
}

// built is the programs of one platform.
type built struct {
	platform v1.Platform
	paths    map[string]string // program → file
}

// build compiles the programs for a platform such as linux/arm64 into a
// directory below work.
func build(ctx context.Context, root, work, platform string) (built, error) {
	p, err := v1.ParsePlatform(strings.TrimSpace(platform))
	if err != nil || p.OS != "linux" || p.Architecture == "" {
		return built{}, fmt.Errorf("-platforms: %q is none; want linux/amd64 or linux/arm64", platform)
	}
	b := built{platform: *p, paths: map[string]string{}}
	for _, program := range programs {
		at := filepath.Join(work, p.Architecture, program.name)
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-ldflags", "-s -w", "-o", at, program.pkg)
		c.Dir = root
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Architecture, "GOFLAGS=")
		c.Stderr = os.Stderr
		if err := c.Run(); err != nil {
			return built{}, fmt.Errorf("build %s for %s: %w", program.name, platform, err)
		}
		b.paths[program.name] = at
	}
	return b, nil
}
