package kube_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/sandboxtest"
)

func TestHowAPodEndedIsTold(t *testing.T) {
	terminated := func(reason string, code int32) corev1.PodStatus {
		return corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: []corev1.ContainerStatus{{Name: "agent",
			State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}}}
	}
	for _, x := range []struct {
		name   string
		status corev1.PodStatus
		lost   fleet.TaskReason
		exit   fleet.TaskReason
		text   string
	}{
		{"memory", terminated("OOMKilled", 137), fleet.ReasonOOM, fleet.ReasonOOM, "resources.memory"},
		{"crash", terminated("Error", 2), fleet.ReasonNodeLost, fleet.ReasonNodeLost, "exit code 2"},
		{"disk", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted",
			Message: `Usage of EmptyDir volume "workspace" exceeds the limit "1Gi". `}, fleet.ReasonDisk, fleet.ReasonNodeLost, "resources.disk"},
		{"pressure", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted",
			Message: "The node was low on resource: memory. "}, fleet.ReasonNodeLost, fleet.ReasonNodeLost, "low on resource"},
		{"preempted", corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Preempting", Message: "Preempted in order to admit critical pod"},
			fleet.ReasonNodeLost, fleet.ReasonNodeLost, "Preempting"},
		{"collected", corev1.PodStatus{Phase: corev1.PodFailed, Conditions: []corev1.PodCondition{{Type: corev1.DisruptionTarget,
			Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists"}}},
			fleet.ReasonNodeLost, fleet.ReasonNodeLost, "node no longer exists"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCluster(t)
			c.on("patch", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
				// The fake's patch is not atomic: it could undo a status.
				return true, nil, apierrors.NewNotFound(podsResource, "any")
			})
			s := c.opened(t)
			waiting, busy := specOf(), specOf()
			for _, spec := range []fleet.SandboxSpec{waiting, busy} {
				if _, err := s.Create(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
			}
			r := sandboxtest.NewRecorder()
			a := fleet.Assignment{Task: fleet.NewTaskID(time.Now()), Fence: 1, Command: []string{"sh", "-c", sandboxtest.ScriptSilent}}
			if err := s.Claim(t.Context(), busy.ID, a, r); err != nil {
				t.Fatal(err)
			}
			for _, spec := range []fleet.SandboxSpec{waiting, busy} {
				pod := c.pod(t, spec.ID)
				c.status(pod, func(p *corev1.Pod) { p.Status = x.status })
				c.kill(pod.UID)
			}
			if err := r.LostWith(t); reasonOf(err) != x.lost || !strings.Contains(err.Error(), x.text) {
				t.Errorf("lost with %v", err)
			}
			for range 2 {
				if e := <-s.Exited(); e.Reason != x.exit || !strings.Contains(e.Err.Error(), x.text) {
					t.Errorf("exit %+v", e)
				}
			}
		})
	}
}

func TestAPodDeletedByOthersIsLost(t *testing.T) {
	c := newCluster(t)
	s := c.opened(t)
	spec := specOf()
	if _, err := s.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := c.client.CoreV1().Pods(namespace).Delete(t.Context(), string(spec.ID), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := <-s.Exited(); e.ID != spec.ID || e.Reason != fleet.ReasonNodeLost || !strings.Contains(e.Err.Error(), "deleted by somebody else") {
		t.Errorf("exit %+v", e)
	}
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Errorf("destroy: %v", err)
	}
}
