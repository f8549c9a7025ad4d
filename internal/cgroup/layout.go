package cgroup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mode tells the versions apart.
type Mode string

// The modes. Hybrid has its controllers in version 1 and an empty version 2
// hierarchy beside them.
const (
	None   Mode = "none"
	V1     Mode = "v1"
	V2     Mode = "v2"
	Hybrid Mode = "hybrid"
)

// Layout is where the hierarchies of this machine are mounted.
type Layout struct {
	Mode Mode
	// V1 maps a version 1 controller (memory, cpu, pids, …, or name=systemd)
	// to its mount point.
	V1 map[string]string
	// Unified is the mount point of version 2, or empty.
	Unified string
	// Own is the path of this process in version 2, or in the version 1 pids
	// or memory hierarchy; "/" where unknown.
	Own string
}

// Detect reads the layout of the running machine.
func Detect() (Layout, error) { return DetectIn("/") }

// DetectIn reads it below another root directory, for tests: mount points in
// the result begin with root.
func DetectIn(root string) (Layout, error) {
	mounts, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return Layout{}, fmt.Errorf("detect cgroups: %w", err)
	}
	own, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return Layout{}, fmt.Errorf("detect cgroups: %w", err)
	}
	l := parseMounts(mounts, root)
	l.Own = parseOwn(own, l.Mode)
	return l, nil
}

// v1Controllers are the names that may stand among the super options of a
// version 1 mount.
var v1Controllers = []string{
	"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb",
	"memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// parseMounts reads mountinfo: "ID parent dev root mountpoint options
// [optional fields] - type source super-options".
func parseMounts(mountinfo []byte, root string) Layout {
	l := Layout{Mode: None, V1: map[string]string{}}
	s := bufio.NewScanner(bytes.NewReader(mountinfo))
	for s.Scan() {
		head, tail, ok := strings.Cut(s.Text(), " - ")
		if !ok {
			continue
		}
		h, t := strings.Fields(head), strings.Fields(tail)
		if len(h) < 6 || len(t) < 3 {
			continue
		}
		point := filepath.Join(root, unescape(h[4]))
		switch t[0] {
		case "cgroup2":
			l.Unified = point
		case "cgroup":
			for o := range strings.SplitSeq(t[2], ",") {
				if slices.Contains(v1Controllers, o) || strings.HasPrefix(o, "name=") {
					l.V1[o] = point
				}
			}
		}
	}
	switch {
	case l.V1["memory"] == "" && l.Unified != "":
		l.Mode = V2
	case len(l.V1) > 0 && l.Unified != "":
		l.Mode = Hybrid
	case len(l.V1) > 0:
		l.Mode = V1
	}
	return l
}

// unescape undoes the octal escapes of mountinfo (space, tab, newline,
// backslash).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func parseOwn(cgroups []byte, m Mode) string {
	own := "/"
	for line := range strings.Lines(string(cgroups)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		names := strings.Split(part[1], ",")
		if m == V2 && part[1] == "" || m != V2 && slices.Contains(names, "pids") {
			own = part[2]
		}
	}
	return own
}

// Delegated returns the version 2 path below which this process may make
// groups by itself because its service manager says so (Delegate=yes), or ""
// where it may not. As root on a machine of its own that path is "/".
func (l Layout) Delegated() string {
	if l.Mode != V2 {
		if os.Geteuid() == 0 && l.Mode != None {
			return "/"
		}
		return ""
	}
	dir := filepath.Join(l.Unified, l.Own)
	if delegatedByXattr(dir) && writable(filepath.Join(dir, "cgroup.procs")) {
		return l.Own
	}
	if os.Geteuid() == 0 {
		return "/"
	}
	return ""
}

// Enter moves this process into a child "control" of its own delegated group,
// as version 2 allows processes in leaves only; then groups may be made beside
// it. A no-op elsewhere.
func (l Layout) Enter() error {
	at := l.Delegated()
	if l.Mode != V2 || at == "" || at == "/" {
		return nil
	}
	leaf := filepath.Join(l.Unified, at, "control")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make cgroup %s: %w", leaf, err)
	}
	procs, err := pidsIn(filepath.Join(l.Unified, at))
	if err != nil {
		return err
	}
	for _, pid := range procs {
		err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), fmt.Append(nil, pid), 0)
		if err != nil {
			return fmt.Errorf("move process %d to cgroup %s: %w", pid, leaf, err)
		}
	}
	return nil
}

// Group is one control group by its path in every hierarchy.
type Group struct {
	l    Layout
	path string
}

// Group names the group at path, which begins with a slash.
func (l Layout) Group(path string) Group { return Group{l: l, path: filepath.Clean("/" + path)} }

// Path returns the path of the group.
func (g Group) Path() string { return g.path }

// dirs returns the directory of the group in every hierarchy, each once.
func (g Group) dirs() []string {
	var out []string
	for _, m := range g.l.V1 {
		out = append(out, filepath.Join(m, g.path))
	}
	if g.l.Unified != "" {
		out = append(out, filepath.Join(g.l.Unified, g.path))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Exists reports whether the group is there in any hierarchy.
func (g Group) Exists() bool {
	return slices.ContainsFunc(g.dirs(), func(d string) bool {
		_, err := os.Stat(d)
		return err == nil
	})
}

// Children returns the names of the groups directly below g in any hierarchy,
// sorted.
func (g Group) Children() ([]string, error) {
	var names []string
	for _, d := range g.dirs() {
		entries, err := os.ReadDir(d)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list cgroups below %s: %w", g.path, err)
		}
		for _, e := range entries {
			if e.IsDir() {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
