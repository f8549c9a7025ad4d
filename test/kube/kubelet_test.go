package kubetest_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	kubetest "muster.dev/muster/test/kube"
)

// sandbox is a pod as sandboxes are: the token is for the init container, and
// a directory in memory for both.
func sandbox(s *corev1.PodSpec) {
	expiry := int64(600)
	user := int64(1000)
	s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user}
	s.RestartPolicy = corev1.RestartPolicyNever
	s.Volumes = []corev1.Volume{
		{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "muster-runner", ExpirationSeconds: &expiry, Path: "token"},
		}}}}},
	}
	run := corev1.VolumeMount{Name: "run", MountPath: "/run/muster"}
	s.InitContainers = []corev1.Container{{
		Name: "runner", Image: "muster", Args: []string{"install", "/run/muster"},
		Env:          []corev1.EnvVar{{Name: "MUSTER_TOKEN_FILE", Value: "/var/run/token/token"}},
		VolumeMounts: []corev1.VolumeMount{run, {Name: "token", MountPath: "/var/run/token"}},
	}}
	c := &s.Containers[0]
	c.Command = []string{"/run/muster/muster-runner"}
	c.Env = []corev1.EnvVar{
		{Name: "MUSTER_IDENTITY", Value: "/run/muster/token"},
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	c.VolumeMounts = []corev1.VolumeMount{run, {Name: "work", MountPath: "/workspace"}}
	c.WorkingDir = "/workspace"
}

// runner writes a program that does what muster-runner does here: it installs
// itself and the token, and otherwise writes down what it sees, and waits.
func runner(t *testing.T, then string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "runner")
	script := `#!/bin/sh
set -e
if [ "$1" = install ]; then
	cp "$0" "$2/muster-runner"
	cp "$MUSTER_TOKEN_FILE" "$2/token"
	exit 0
fi
echo "$POD $(id -u) $(cat "$MUSTER_IDENTITY")" > seen
` + then + "\n"
	if err := os.WriteFile(name, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// verify reviews a token for the audience of runners.
func verify(t *testing.T, c *kubetest.Cluster, token string, p *corev1.Pod) {
	t.Helper()
	r, err := c.Client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"muster-runner"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	extra := r.Status.User.Extra
	name, uid := extra["authentication.kubernetes.io/pod-name"], extra["authentication.kubernetes.io/pod-uid"]
	if !r.Status.Authenticated || len(name) != 1 || name[0] != p.Name || len(uid) != 1 || uid[0] != string(p.UID) {
		t.Errorf("the token's review is %+v, want the pod %s with UID %s", r.Status, p.Name, p.UID)
	}
}

func TestARunnerIsAProcessOfThisMachine(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t, "pod-security.kubernetes.io/enforce=baseline")
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "kubelet", Min: 1, Max: 1})
	out := t.TempDir()
	if err := os.Chmod(out, 0o777); err != nil { // for the user of the pod
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Kubelet(t, kubetest.KubeletOptions{Namespace: ns, Runner: runner(t, "cp seen "+out+"/\ntrap 'exit 3' TERM\nwhile :; do sleep 0.05; done")})
	p := awaitPod(t, c, onePod(t, c, ns, "agent", here, sandbox), "ready", ready)
	var seen []string
	until(t, "the process writes", func(context.Context) (bool, error) {
		b, err := os.ReadFile(filepath.Join(out, "seen"))
		seen = strings.Fields(string(b))
		return len(seen) == 3, err
	})
	if seen[0] != p.Name {
		t.Errorf("the field metadata.name is %q in the pod %s", seen[0], p.Name)
	}
	if os.Geteuid() == 0 && seen[1] != "1000" {
		t.Errorf("it runs as %s, want the pod's user 1000", seen[1])
	}
	verify(t, c, seen[2], p)
	if err := c.Client.CoreV1().Pods(ns).Delete(t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "the pod is gone", func(ctx context.Context) (bool, error) {
		pods, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 0, err
	})
}

func TestAPodEndsWithItsProcess(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "ends", Min: 1, Max: 1})
	c.Kubelet(t, kubetest.KubeletOptions{Namespace: ns, Runner: runner(t, "exit 7")})
	p := awaitPod(t, c, onePod(t, c, ns, "agent", here, sandbox), "failed", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 7 {
		t.Errorf("the container is %+v, want ended with exit code 7", p.Status.ContainerStatuses[0].State)
	}
}

func TestAnImageThatIsNotThere(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "image", Min: 1, Max: 1})
	p := onePod(t, c, ns, "agent", here, func(s *corev1.PodSpec) { s.Containers[0].Image = "example.com/no-such-image" })
	awaitPod(t, c, p, "ImagePullBackOff", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return p.Status.Phase == corev1.PodPending && len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "ImagePullBackOff"
	})
}

func TestManyRunnersInThisProcess(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	const pods = 60
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "many", Min: 1, Max: 1, MilliCPU: pods * 1000, Memory: 1 << 40, Pods: pods})
	var running, wrong atomic.Int64
	c.Kubelet(t, kubetest.KubeletOptions{Namespace: ns, InProcess: func(ctx context.Context, env map[string]string) int {
		if b, err := os.ReadFile(env["MUSTER_IDENTITY"]); err != nil || len(b) == 0 {
			wrong.Add(1)
		}
		running.Add(1)
		defer running.Add(-1)
		<-ctx.Done()
		return 0
	}})
	for n := range pods {
		onePod(t, c, ns, fmt.Sprint("p", n), here, sandbox)
	}
	until(t, "all run", func(context.Context) (bool, error) { return running.Load() == pods, nil })
	if wrong.Load() != 0 {
		t.Errorf("%d runners found no token", wrong.Load())
	}
	if err := c.Client.CoreV1().Pods(ns).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "none runs", func(context.Context) (bool, error) { return running.Load() == 0, nil })
}

func TestAgentSandboxClaims(t *testing.T) {
	c := kubetest.Start(t)
	kubetest.AgentSandbox(t, c)
	ns := c.Namespace(t)
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "claims", Min: 1, Max: 1, MilliCPU: 8000, Memory: 8 << 30})
	extensions := schema.GroupVersion{Group: "extensions.agents.x-k8s.io", Version: "v1beta1"}
	spec := corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent", Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1")},
	}}}}
	here(&spec)
	make := func(plural, kind, name string, s map[string]any) {
		t.Helper()
		o := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": name}, "spec": s}}
		o.SetAPIVersion(extensions.String())
		o.SetKind(kind)
		if _, err := c.Dynamic.Resource(extensions.WithResource(plural)).Namespace(ns).Create(t.Context(), o, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	make("sandboxtemplates", "SandboxTemplate", "agent", map[string]any{"podTemplate": map[string]any{"spec": plain(t, spec)}})
	make("sandboxwarmpools", "SandboxWarmPool", "warm", map[string]any{"replicas": int64(2), "sandboxTemplateRef": map[string]any{"name": "agent"}})
	status := func(ctx context.Context, plural, name string, field ...string) (any, error) {
		o, err := c.Dynamic.Resource(extensions.WithResource(plural)).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		v, _, err := unstructured.NestedFieldNoCopy(o.Object, append([]string{"status"}, field...)...)
		return v, err
	}
	until(t, "two are warm", func(ctx context.Context) (bool, error) {
		n, err := status(ctx, "sandboxwarmpools", "warm", "readyReplicas")
		return n == int64(2), err
	})
	make("sandboxclaims", "SandboxClaim", "mine", map[string]any{"warmPoolRef": map[string]any{"name": "warm"}})
	until(t, "the claim is bound", func(ctx context.Context) (bool, error) {
		name, err := status(ctx, "sandboxclaims", "mine", "sandbox", "name")
		return name != nil && name != "", err
	})
	until(t, "the pool is filled again", func(ctx context.Context) (bool, error) {
		pods, err := c.Client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 3, err
	})
}

// plain is a value as the API server would have it.
func plain(t *testing.T, v corev1.PodSpec) map[string]any {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&v)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
