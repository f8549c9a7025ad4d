package oci

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"muster.dev/muster/internal/fleet"
)

// rootless is how ids are mapped where we are not root; nil where we are.
type rootless struct {
	uid, gid       int
	subUID, subGID int // first subordinate id; 0: only one's own id is mapped
}

// detectRootless returns nil as root. Subordinate ids are used where the user
// has at least 65,536 of both and newuidmap is installed.
func detectRootless() *rootless {
	if os.Geteuid() == 0 {
		return nil
	}
	r := &rootless{uid: os.Geteuid(), gid: os.Getegid()}
	_, errU := lookProgram("newuidmap")
	_, errG := lookProgram("newgidmap")
	if errU != nil || errG != nil {
		return r
	}
	u, g := subordinate("/etc/subuid", r.uid), subordinate("/etc/subgid", r.uid)
	if u > 0 && g > 0 {
		r.subUID, r.subGID = u, g
	}
	return r
}

// ranged tells whether there are ids for more than one user.
func (r *rootless) ranged() bool { return r != nil && r.subUID > 0 }

// apart tells whether the agent has another id than the runner. gVisor has
// all ids inside, whatever there is outside.
func (r *rootless) apart(k fleet.Runtime) bool {
	return r == nil || r.ranged() || k == fleet.RuntimeGVisor
}

// mappings makes one's own id root inside, and the subordinate ones the rest.
// runsc has become root of a user namespace of one id before it reads them.
func (r *rootless) mappings(k fleet.Runtime, group bool) []specs.LinuxIDMapping {
	own, sub := r.uid, r.subUID
	if group {
		own, sub = r.gid, r.subGID
	}
	if k == fleet.RuntimeGVisor {
		return []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1}}
	}
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(own), Size: 1}}
	if r.ranged() {
		m = append(m, specs.LinuxIDMapping{ContainerID: 1, HostID: uint32(sub), Size: rangeSize - 1})
	}
	return m
}

// subordinate reads the first range of at least 65,535 ids of the user in
// /etc/subuid: "name-or-id:first:count".
func subordinate(file string, uid int) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	id := strconv.Itoa(uid)
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	for line := range strings.Lines(string(b)) {
		var first, count int
		who, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		if who != id && who != name {
			continue
		}
		if _, err := fmt.Sscanf(rest, "%d:%d", &first, &count); err == nil && count >= rangeSize-1 {
			return first
		}
	}
	return 0
}
