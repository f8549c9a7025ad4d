//go:build linux

package runner

import (
	"path"
	"strings"

	"fmt"
)

// glob is one artifact pattern, split at slashes. "**" stands for any number
// of directories; the rest is as in path.Match. A pattern that names a
// directory means everything below it.
type glob struct {
	text  string
	parts []string
}

// parseGlob refuses what could never be inside the workspace.
func parseGlob(text string) (glob, error) {
	p := strings.TrimSuffix(strings.TrimPrefix(text, "./"), "/")
	g := glob{text: text, parts: strings.Split(p, "/")}
	if p == "" || strings.HasPrefix(p, "/") {
		return g, fmt.Errorf("artifact pattern %q: want a path relative to the workspace", text)
	}
	for _, part := range g.parts {
		if part == ".." || part == "" {
			return g, fmt.Errorf("artifact pattern %q: it may not hold .. or empty parts", text)
		}
		if _, err := path.Match(part, ""); err != nil {
			return g, fmt.Errorf("artifact pattern %q: %w", text, err)
		}
	}
	return g, nil
}

// base is the directory all matches are in: the parts before the first with a
// wildcard.
func (g glob) base() string {
	var lit []string
	for _, p := range g.parts[:len(g.parts)-1] {
		if strings.ContainsAny(p, `*?[\`) {
			break
		}
		lit = append(lit, p)
	}
	if len(lit) == 0 {
		return "."
	}
	return strings.Join(lit, "/")
}

// match reports whether the pattern names file or a directory above it.
func (g glob) match(file string) bool {
	return matchParts(g.parts, strings.Split(file, "/"))
}

// matchParts matches in time linear in both (each "**" remembers only the last
// chance to widen), so that no pattern can be made to take for ever.
func matchParts(pat, name []string) bool {
	pi, ni := 0, 0
	starP, starN := -1, 0
	for ni < len(name) {
		if pi == len(pat) {
			return true // the rest is below what was named
		}
		if pat[pi] == "**" {
			starP, starN = pi, ni
			pi++
			continue
		}
		if ok, _ := path.Match(pat[pi], name[ni]); ok {
			pi++
			ni++
			continue
		}
		if starP < 0 {
			return false
		}
		starN++
		pi, ni = starP+1, starN
	}
	for pi < len(pat) && pat[pi] == "**" {
		pi++
	}
	return pi == len(pat)
}
