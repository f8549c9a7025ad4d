package kube

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/proc"
)

// lookTime bounds the look from inside; it is no reason to fail a start.
const lookTime = 3 * time.Second

// isolationOf says where a sandbox runs and how it is confined: what the
// kernel says of a process of the agent's, and what the pod was admitted with.
func (s *Sandboxes) isolationOf(ctx context.Context, b *box) (fleet.Isolation, error) {
	pod := b.seen()
	if pod == nil || pod.Spec.NodeName == "" { // the runner was faster than the watch
		var err error
		if pod, err = s.maker.find(ctx, b.id); err != nil {
			return fleet.Isolation{}, err
		}
	}
	iso := fleet.Isolation{
		Node: fleet.NodeID(pod.Spec.NodeName), Runtime: b.runtime, UID: agentUID, HostUID: agentUID,
		Cgroups: "pod", Volume: "eviction", Network: b.spec.Network.Mode, Lost: s.losses(b),
	}
	if u := pod.Spec.HostUsers; u != nil && !*u {
		iso.UserNamespace, iso.HostUID = true, -1 // only the node knows
	}
	if err := s.look(ctx, b, &iso); err != nil {
		if ctx.Err() != nil {
			return iso, err
		}
		asked(pod, &iso)
		iso.Lost = append(iso.Lost, fmt.Sprintf("the confinement was not observed from inside, it is what the pod asks for: %v", err))
	}
	iso.Lost = append(iso.Lost, b.session.Lost()...)
	return iso, nil
}

// look asks the kernel, through the runner's own program: an image may have
// none that could.
func (s *Sandboxes) look(ctx context.Context, b *box, iso *fleet.Isolation) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var out bytes.Buffer
	code, err := b.session.Exec(ctx, fleet.ExecRequest{Command: []string{runnerPath, "observe"}, Stdout: &out})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("the runner's own look ended with %d", code)
	}
	proc.ReadStatus(iso, out.String())
	iso.ReadOnlyRoot = proc.ReadOnlyAt(out.String(), "/")
	return nil
}

// asked is the confinement that the pod was admitted with.
func asked(pod *corev1.Pod, iso *fleet.Isolation) {
	c := pod.Spec.SecurityContext
	if c == nil {
		return
	}
	if c.RunAsUser != nil {
		iso.UID = int(*c.RunAsUser)
	}
	iso.Seccomp = c.SeccompProfile != nil && c.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault
	iso.NoNewPrivs, iso.ReadOnlyRoot = true, true // of the container; see containerSecurity
}

// losses are the protections that a pod cannot have, in words.
func (s *Sandboxes) losses(b *box) []string {
	lost := []string{
		"processes are limited by the node (podPidsLimit of the kubelet), not by resources.pids: a pod cannot have a limit of its own",
		"open files are limited by the node's container runtime, not by resources.files",
		"a full disk is noticed by the kubelet, some seconds late, and ends the sandbox",
		"the network is closed by a NetworkPolicy, which the cluster's network plugin must enforce; that cannot be seen from here",
	}
	if !s.o.Pods.UserNamespaces {
		lost = append(lost, "no user namespace: the agent's user is the node's user 1000")
	}
	if b.runtime != fleet.RuntimeGVisor {
		lost = append(lost, "the kernel is shared with the node: no boundary against hostile code")
	}
	return lost
}
