package kube

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"muster.dev/muster/internal/fleet"
)

// startFailure says why a pod will never start, nil while it may.
func startFailure(pod *corev1.Pod) error {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			c := &list[i]
			if w := c.State.Waiting; w != nil {
				if err := waitingFailure(c, w); err != nil {
					return err
				}
			}
			if t := c.State.Terminated; t != nil && c.Name == containerRunner && t.ExitCode != 0 {
				return fmt.Errorf("the init container that installs the runner failed: %s", terminatedWords(t))
			}
		}
	}
	return nil
}

// waitingFailure judges why a container waits, in the kubelet's words
// (kubernetes pkg/kubelet/images and kuberuntime).
func waitingFailure(c *corev1.ContainerStatus, w *corev1.ContainerStateWaiting) error {
	err := fmt.Errorf("image %s: %s: %s", c.Image, w.Reason, w.Message)
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff":
		if outOfReach(w.Message) {
			err = fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
		}
		return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: err}
	case "RegistryUnavailable":
		return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)}
	case "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "SignatureValidationFailed",
		"CreateContainerError", "RunContainerError", "StartError":
		return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: err}
	case "CreateContainerConfigError":
		return &fleet.ReasonError{Reason: fleet.ReasonImage, Err: fmt.Errorf("the pod's configuration does not fit the cluster: %w", err)}
	}
	return nil
}

// outOfReach tells a registry that is down from an image that is not there, by
// the words of Go's network stack and of registries that limit pulls.
func outOfReach(message string) bool {
	m := strings.ToLower(message)
	for _, w := range []string{
		"timeout", "timed out", "connection refused", "connection reset", "no such host", "no route to host",
		"network is unreachable", "tls handshake", "unexpected eof", "server misbehaving", "temporary failure",
		"toomanyrequests", "too many requests", "status 429", "status 500", "status 502", "status 503", "status 504",
		"bad gateway", "service unavailable", "internal server error", "pull qps exceeded",
	} {
		if strings.Contains(m, w) {
			return true
		}
	}
	return false
}

// ending says why a pod is over, nil while it goes on.
func ending(pod *corev1.Pod) *fleet.ReasonError {
	lost := func(format string, a ...any) *fleet.ReasonError {
		return &fleet.ReasonError{Reason: fleet.ReasonNodeLost, Err: fmt.Errorf(format, a...)}
	}
	if r := disrupted(pod); r != "" {
		return lost("%s", r)
	}
	for i := range pod.Status.ContainerStatuses {
		t := pod.Status.ContainerStatuses[i].State.Terminated
		switch {
		case t == nil:
		case t.Reason == "OOMKilled":
			return &fleet.ReasonError{Reason: fleet.ReasonOOM,
				Err: errors.New("the memory limit was reached and the kernel killed the sandbox (resources.memory)")}
		case pod.Status.Phase != corev1.PodFailed || pod.Status.Reason == "":
			return lost("the sandbox ended by itself: %s", terminatedWords(t))
		}
	}
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		return lost("the sandbox ended by itself")
	case corev1.PodFailed:
		text := strings.Trim(pod.Status.Reason+": "+pod.Status.Message, ": ")
		if text == "" { // the garbage collector of pods says it in a condition only
			text = disruption(pod)
		}
		if pod.Status.Reason == "Evicted" && overDisk(pod.Status.Message) {
			return &fleet.ReasonError{Reason: fleet.ReasonDisk, Err: fmt.Errorf("the writable disk was full (resources.disk): %s", text)}
		}
		return lost("the pod failed: %s", text)
	}
	return nil
}

// overDisk tells an eviction for what the sandbox wrote from one for what its
// node lacks (kubernetes pkg/kubelet/eviction/helpers.go).
func overDisk(message string) bool {
	return strings.Contains(message, "ephemeral local storage") || strings.Contains(message, "Usage of EmptyDir volume")
}

// disrupted says that a pod is as good as gone, though its object is there:
// its node does not answer any more, so nobody will say when it ended.
func disrupted(pod *corev1.Pod) string {
	if pod.DeletionTimestamp == nil {
		return ""
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Reason {
		case "DeletionByTaintManager", "DeletionByPodGC":
			return fmt.Sprintf("node %s is gone or does not answer: %s: %s", pod.Spec.NodeName, c.Reason, c.Message)
		}
	}
	return ""
}

// removed says why a pod is gone without having ended.
func removed(pod *corev1.Pod) *fleet.ReasonError {
	if r := ending(pod); r != nil {
		return r
	}
	text := "the pod was deleted by somebody else"
	if d := disruption(pod); d != "" {
		text = "the pod was removed: " + d
	}
	return &fleet.ReasonError{Reason: fleet.ReasonNodeLost, Err: errors.New(text)}
}

// disruption is what the cluster says of a pod that it takes away, empty where
// it says nothing.
func disruption(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return c.Reason + ": " + c.Message
		}
	}
	return ""
}

func terminatedWords(t *corev1.ContainerStateTerminated) string {
	text := fmt.Sprintf("%s, exit code %d", t.Reason, t.ExitCode)
	if t.Signal != 0 {
		text += fmt.Sprintf(", signal %d", t.Signal)
	}
	if t.Message != "" {
		text += ": " + t.Message
	}
	return text
}

// pendingWords says what a pod waits for; empty when it runs.
func pendingWords(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("no node for it: %s: %s", c.Reason, c.Message)
		}
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, c := range list {
			if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" {
				return strings.TrimSpace(fmt.Sprintf("on node %s container %s waits: %s %s", pod.Spec.NodeName, c.Name, w.Reason, w.Message))
			}
		}
	}
	switch {
	case pod.Spec.NodeName == "":
		return "the scheduler has not looked at it"
	case pod.Status.Phase == corev1.PodPending:
		return fmt.Sprintf("node %s has not started it", pod.Spec.NodeName)
	}
	return fmt.Sprintf("its pod runs on node %s and its runner is not ready", pod.Spec.NodeName)
}
