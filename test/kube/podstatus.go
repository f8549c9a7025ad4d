package kubetest

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// status is what the statuses of a pod on its node have in common.
func (p *pod) status(phase corev1.PodPhase, initialized, ready bool, why string) corev1.PodStatus {
	now := metav1.Now()
	condition := func(kind corev1.PodConditionType, holds bool) corev1.PodCondition {
		c := corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now}
		if !holds {
			c.Status, c.Reason = corev1.ConditionFalse, why
		}
		return c
	}
	return corev1.PodStatus{
		Phase: phase, StartTime: &p.started, HostIP: "127.0.0.1", PodIP: p.ip, PodIPs: []corev1.PodIP{{IP: p.ip}},
		Conditions: []corev1.PodCondition{
			condition(corev1.PodReadyToStartContainers, true),
			condition(corev1.PodInitialized, initialized),
			condition(corev1.ContainersReady, ready),
			condition(corev1.PodReady, ready),
		},
	}
}

func containerStatus(c *corev1.Container, s corev1.ContainerState) corev1.ContainerStatus {
	running := s.Running != nil
	out := corev1.ContainerStatus{Name: c.Name, Image: c.Image, State: s, Ready: running, Started: &running}
	if s.Waiting == nil {
		out.ContainerID, out.ImageID = "kubetest://"+c.Name, c.Image
	}
	return out
}

func each(containers []corev1.Container, s corev1.ContainerState) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for i := range containers {
		out = append(out, containerStatus(&containers[i], s))
	}
	return out
}

// completed are the init containers of a pod that has got past them.
func (p *pod) completed() []corev1.ContainerStatus {
	done := each(p.spec.Spec.InitContainers, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: "Completed", StartedAt: p.started, FinishedAt: metav1.Now(),
	}})
	for i := range done {
		done[i].Ready = true
	}
	return done
}

func (p *pod) runningStatus() corev1.PodStatus {
	s := p.status(corev1.PodRunning, true, true, "")
	s.InitContainerStatuses = p.completed()
	s.ContainerStatuses = each(p.spec.Spec.Containers, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}})
	return s
}

// waitingStatus is that of a pod whose first container to start cannot.
func (p *pod) waitingStatus(reason, message string) corev1.PodStatus {
	s := p.status(corev1.PodPending, len(p.spec.Spec.InitContainers) == 0, false, "ContainersNotReady")
	held := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	queued := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
	if len(p.spec.Spec.InitContainers) == 0 {
		s.ContainerStatuses = each(p.spec.Spec.Containers, held)
		return s
	}
	s.InitContainerStatuses = each(p.spec.Spec.InitContainers, queued)
	s.InitContainerStatuses[0].State = held
	s.ContainerStatuses = each(p.spec.Spec.Containers, queued)
	return s
}

// endedStatus is that of a pod that never restarts and whose first container,
// or the init container named, has ended.
func (p *pod) endedStatus(init *corev1.Container, ended corev1.ContainerStateTerminated) corev1.PodStatus {
	phase, why := corev1.PodSucceeded, "PodCompleted"
	if ended.ExitCode != 0 {
		phase, why = corev1.PodFailed, "PodFailed"
	}
	s := p.status(phase, init == nil, false, why)
	s.InitContainerStatuses = p.completed()
	if init == nil {
		s.ContainerStatuses = each(p.spec.Spec.Containers, corev1.ContainerState{Terminated: &ended})
		return s
	}
	for i := range s.InitContainerStatuses {
		if s.InitContainerStatuses[i].Name == init.Name {
			s.InitContainerStatuses[i] = containerStatus(init, corev1.ContainerState{Terminated: &ended})
		}
	}
	s.ContainerStatuses = each(p.spec.Spec.Containers, corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}})
	return s
}
