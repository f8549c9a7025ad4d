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

// completed are the first init containers of a pod, which it has got past.
func (p *pod) completed(n int) []corev1.ContainerStatus {
	done := each(p.spec.Spec.InitContainers[:n], corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: "Completed", StartedAt: p.started, FinishedAt: metav1.Now(),
	}})
	for i := range done {
		done[i].Ready = true
	}
	return done
}

func (p *pod) runningStatus() corev1.PodStatus {
	s := p.status(corev1.PodRunning, true, true, "")
	s.InitContainerStatuses = p.completed(len(p.spec.Spec.InitContainers))
	s.ContainerStatuses = each(p.spec.Spec.Containers, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}})
	return s
}

// initWaitingStatus is that of a pod whose init container n cannot start: those
// before it have ended, and all others wait for it.
func (p *pod) initWaitingStatus(n int, reason, message string) corev1.PodStatus {
	s := p.status(corev1.PodPending, false, false, "ContainersNotReady")
	queued := waiting("PodInitializing", "")
	s.InitContainerStatuses = append(p.completed(n), each(p.spec.Spec.InitContainers[n:], queued)...)
	s.InitContainerStatuses[n].State = waiting(reason, message)
	s.ContainerStatuses = each(p.spec.Spec.Containers, queued)
	return s
}

// waitingStatus is that of a pod that has got past its init containers and
// whose container n cannot start.
func (p *pod) waitingStatus(n int, reason, message string) corev1.PodStatus {
	s := p.status(corev1.PodPending, true, false, "ContainersNotReady")
	s.InitContainerStatuses = p.completed(len(p.spec.Spec.InitContainers))
	s.ContainerStatuses = each(p.spec.Spec.Containers, waiting("ContainerCreating", ""))
	s.ContainerStatuses[n].State = waiting(reason, message)
	return s
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// endedStatus is that of a pod that never restarts and whose first container,
// or the init container named, has ended.
func (p *pod) endedStatus(init *corev1.Container, ended corev1.ContainerStateTerminated) corev1.PodStatus {
	phase, why := corev1.PodSucceeded, "PodCompleted"
	if ended.ExitCode != 0 {
		phase, why = corev1.PodFailed, "PodFailed"
	}
	s := p.status(phase, init == nil, false, why)
	s.InitContainerStatuses = p.completed(len(p.spec.Spec.InitContainers))
	if init == nil {
		s.ContainerStatuses = each(p.spec.Spec.Containers, corev1.ContainerState{Terminated: &ended})
		return s
	}
	for i := range s.InitContainerStatuses {
		if s.InitContainerStatuses[i].Name == init.Name {
			s.InitContainerStatuses[i] = containerStatus(init, corev1.ContainerState{Terminated: &ended})
		}
	}
	s.ContainerStatuses = each(p.spec.Spec.Containers, waiting("PodInitializing", ""))
	return s
}
