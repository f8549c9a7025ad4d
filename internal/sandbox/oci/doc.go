// Package oci is fleet.Sandboxes for one Linux machine: containers made by
// runc, crun or runsc (gVisor), driven through their command line.
//
// # A sandbox on disk
//
//	<Dir>/<id>/sandbox.json   what is needed to adopt or remove it, written first
//	           config.json    the OCI bundle
//	           run/           bind-mounted read-only at /run/muster:
//	                          runner, control.sock, proxy.sock, hosts
//	           volume         sparse file with the ext4 of everything writable
//	<Dir>/.roots/…            read-only roots, shared (see rootKind)
//	<Dir>/.volumes/…          empty volumes to copy
//	<Dir>/.state/<runtime>/   the runtimes' own state
//	<Dir>/.runners/…          the runner by digest, hard-linked into each run/
//
// # Mounts die with the sandbox
//
// Nothing is mounted where the host could see it. The loop device, the layers
// of an image and the binds are mounted by a thread in a mount namespace of
// its own (privately), from which the runtime is started; the container's
// namespace is a copy. When both are gone the kernel unmounts everything and
// the loop device frees itself. A kill -9 of the control plane at any moment
// can therefore leave only processes, control groups and directories, and all
// three are found by name.
//
//	control plane ──thread──▶ private mount namespace ──copy──▶ container
//	   sees none of it         /mnt: root, volume, run           lives on alone
//
// The same trick hides the empty version 2 hierarchy of hybrid machines from
// crun, which refuses to run beside it.
//
// # Life
//
// Create writes the record, makes the volume (a copy of an empty one: 1 ms),
// listens, and calls `runtime run --detach` once; the init is then watched by
// pidfd, so that it needs not be our child and is watched just the same after
// adoption (pid and start time are verified). Destroy kills the init and the
// control group, has the runtime forget the container, and removes the
// directory last: begun again after a crash it goes on where it was.
//
// # Ids
//
// Every sandbox has a range of 65,536 host ids. For the image "host" nothing
// is owned by them but its volume: the host's files appear as nobody's, which
// also means that none of their set-user-id bits count. Layers of other images
// are shown as owned by the range through idmapped mounts below overlayfs
// (Linux 5.19); on older kernels all sandboxes with images share one range,
// and say so.
//
// # Limits
//
// Memory is memory and swap together; the reasons oom, pids and disk are told
// from the host's counters (package cgroup, statfs of the volume), never from
// what the sandbox says. gVisor's kernel and its helpers count among memory
// and pids, and a sandbox of gVisor that exceeds either ends as a whole. nproc
// and language runtimes are told the cpu limit by OMP_NUM_THREADS, GOMAXPROCS
// and PYTHON_CPU_COUNT, as affinity would waste idle processors.
//
// # Without root
//
// Sandboxes work where the kernel allows user namespaces to everybody: runc
// and runsc, the image "host", network none and proxy. Lost are limits unless
// a control group was delegated (version 2), the sized disk (memory file
// systems instead), and, without subordinate ids, the wall between the agent
// and its runner. Isolation.Lost says which.
//
// It may import fleet, cgroup, sandbox/link, sandbox/egress, sandbox/image,
// sandbox/proc, go-runc, runtime-spec, moby's seccomp profile and x/sys/unix.
package oci
