// Package cgroup reads and ends control groups from outside, for version 1,
// version 2 and the hybrid of both: where the hierarchies are mounted, what a
// group used, which processes it holds, how to kill and remove it.
//
// It makes no groups and sets no limits: the container runtime does. It reads
// the kernel's files itself, since the libraries for it leave out what a
// verdict on a task needs (pids.events, oom_kill of version 1).
//
// File formats: Documentation/admin-guide/cgroup-v1/*.rst and cgroup-v2.rst of
// the Linux kernel.
//
// It may import fleet, x/sys/unix and the standard library.
package cgroup
