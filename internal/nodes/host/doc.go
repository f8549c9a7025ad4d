// Package host is the node layer of one machine (an adapter of fleet.Nodes):
// the machine itself, with what it can give to sandboxes. It imports package
// fleet and reads /proc and the control plane's own cgroup.
package host
