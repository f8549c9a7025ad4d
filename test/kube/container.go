package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

const runnerName = "muster-runner"

// execute runs a container as a process, and returns its exit code. started is
// called once it runs. The end of the context kills it, and all it has started.
// A program of an image, which is not there, only seems to run.
func (p *pod) execute(ctx context.Context, c *corev1.Container, v *volumes, started func()) (int, error) {
	argv := append(slices.Clone(c.Command), c.Args...)
	if len(c.Command) == 0 {
		argv = append([]string{runnerName}, c.Args...)
	}
	for i := range argv {
		argv[i] = v.rewrite(c, argv[i])
	}
	program := argv[0]
	if _, err := os.Stat(program); path.Base(program) == runnerName && (err != nil || !filepath.IsAbs(program)) {
		program = p.o.Runner // of the image
	}
	if _, err := os.Stat(program); err != nil && filepath.IsAbs(program) {
		if started != nil {
			started()
		}
		<-ctx.Done()
		return 137, nil
	}
	cmd := exec.Command(program, argv[1:]...) //nolint:gosec // what the test's pod says
	cmd.Args[0] = argv[0]
	cmd.Dir = p.dir
	if w := v.rewrite(c, c.WorkingDir); w != "" {
		cmd.Dir = w
	}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.user(c)}
	for name, value := range p.environment(c, v) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	child, err := start(p.spec.Name+"/"+c.Name, cmd)
	if err != nil {
		return 128, err
	}
	p.mu.Lock()
	p.child = child
	p.mu.Unlock()
	defer func() { // what it left behind ends with it
		_ = syscall.Kill(-child.cmd.Process.Pid, syscall.SIGKILL)
	}()
	if started != nil {
		started()
	}
	select {
	case <-ctx.Done():
		// The first process goes first: it must not get to tell of the others.
		below := descendants(child.cmd.Process.Pid)
		child.kill()
		for _, pid := range below {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return 137, nil
	case <-child.done:
	}
	var exit *exec.ExitError
	switch {
	case !errors.As(child.err, &exit):
		return 0, child.err
	case exit.Sys().(syscall.WaitStatus).Signaled():
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal()), nil
	}
	return exit.ExitCode(), nil
}

// descendants are the processes below one, which sessions of their own do not
// hide.
func descendants(of int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var state string
		_, rest, _ := strings.Cut(string(b), ") ") // the name before may hold anything
		if _, err := fmt.Sscanf(rest, "%1s %d", &state, &parent); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(string(b), "%d", &pid); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	found := []int{of}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i]]...)
	}
	return found[1:]
}

// user is who a container runs as: what the pod says where we are root, else
// we ourselves.
func (p *pod) user(c *corev1.Container) *syscall.Credential {
	if os.Geteuid() != 0 {
		return nil
	}
	var uid, gid *int64
	if s := p.spec.Spec.SecurityContext; s != nil {
		uid, gid = s.RunAsUser, s.RunAsGroup
	}
	if s := c.SecurityContext; s != nil {
		if s.RunAsUser != nil {
			uid = s.RunAsUser
		}
		if s.RunAsGroup != nil {
			gid = s.RunAsGroup
		}
	}
	if uid == nil {
		return nil
	}
	if gid == nil {
		gid = uid
	}
	return &syscall.Credential{Uid: uint32(*uid), Gid: uint32(*gid), NoSetGroups: false} //nolint:gosec // validated by the API server
}

// environment is what a container finds in its variables. Images are not there,
// so the search path is ours.
func (p *pod) environment(c *corev1.Container, v *volumes) map[string]string {
	env := map[string]string{"PATH": os.Getenv("PATH"), "HOSTNAME": p.spec.Name}
	for _, e := range c.Env {
		value := e.Value
		if f := e.ValueFrom; f != nil && f.FieldRef != nil {
			value = p.field(f.FieldRef.FieldPath)
		}
		// $(NAME) stands for a variable before it.
		for name, earlier := range env {
			value = strings.ReplaceAll(value, "$("+name+")", earlier)
		}
		env[e.Name] = v.rewrite(c, value)
	}
	return env
}

// field is a field of the pod by its path in the downward API.
func (p *pod) field(name string) string {
	if key, ok := strings.CutPrefix(name, "metadata.labels['"); ok {
		return p.spec.Labels[strings.TrimSuffix(key, "']")]
	}
	if key, ok := strings.CutPrefix(name, "metadata.annotations['"); ok {
		return p.spec.Annotations[strings.TrimSuffix(key, "']")]
	}
	return map[string]string{
		"metadata.name": p.spec.Name, "metadata.namespace": p.spec.Namespace, "metadata.uid": string(p.spec.UID),
		"spec.nodeName": p.spec.Spec.NodeName, "spec.serviceAccountName": p.spec.Spec.ServiceAccountName,
		"status.podIP": p.ip, "status.hostIP": "127.0.0.1",
	}[name]
}
