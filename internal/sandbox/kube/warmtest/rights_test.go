package warmtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/kube"
	"muster.dev/muster/internal/sandbox/sandboxtest"
	kubetest "muster.dev/muster/test/kube"
)

// warmRights are all that the adapter needs with agent-sandbox.
var warmRights = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch", "patch", "delete"}},
	{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: []string{"create", "patch"}},
	{APIGroups: []string{"metrics.k8s.io"}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	{APIGroups: []string{extensions}, Resources: []string{"sandboxtemplates"}, Verbs: []string{"create", "delete"}},
	{APIGroups: []string{extensions}, Resources: []string{"sandboxwarmpools"}, Verbs: []string{"get", "list", "create", "patch", "delete"}},
	{APIGroups: []string{extensions}, Resources: []string{"sandboxclaims"}, Verbs: []string{"list", "create", "delete"}},
	{APIGroups: []string{core}, Resources: []string{"sandboxes"}, Verbs: []string{"delete"}},
}

// as returns the options of an adapter with these rights and no other.
func (s *site) as(t *testing.T, name string, rules []rbacv1.PolicyRule, warm bool) kube.Options {
	t.Helper()
	c := s.cluster.ServiceAccountConfig(t, s.namespace, name)
	rbac := s.cluster.Client.RbacV1()
	if _, err := rbac.Roles(s.namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bind := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.namespace, Name: name}}}
	if _, err := rbac.RoleBindings(s.namespace).Create(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	anything, err := dynamic.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(t, name, warm)
	o.Client, o.Dynamic = client, anything
	return o
}

// TestWarmNeedsTheseRights runs the adapter with exactly its rights, and
// without one of them.
func TestWarmNeedsTheseRights(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	a, err := kube.New(t.Context(), s.as(t, "enough", warmRights, true))
	if err != nil {
		t.Fatal(err)
	}
	spec := specOf()
	if _, err := a.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := a.Claim(t.Context(), spec.ID, waiting(1), sandboxtest.NewRecorder()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the claim is made", func() bool { return len(s.objects(t, extensions, "sandboxclaims")) == 1 })
	if ids, err := a.List(t.Context()); err != nil || len(ids) != 1 {
		t.Errorf("%v, %v", ids, err)
	}
	if err := a.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	for n, verb := range map[int]string{4: "list", 3: "create"} {
		less := append([]rbacv1.PolicyRule(nil), warmRights...)
		less[n].Verbs = nil
		for _, v := range warmRights[n].Verbs {
			if v != verb {
				less[n].Verbs = append(less[n].Verbs, v)
			}
		}
		a, err := kube.New(t.Context(), s.as(t, "without-"+verb, less, true))
		if err == nil {
			_, err = a.Create(t.Context(), specOf())
			_ = a.Close()
		}
		if !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), verb+" "+less[n].Resources[0]) {
			t.Errorf("without %s: %v", verb, err)
		}
	}
}

// TestPoolsGoWithTheirFleet: what the fleet's object owns is collected with it.
func TestPoolsGoWithTheirFleet(t *testing.T) {
	s := newSite(t, 1, kubetest.KubeletOptions{})
	maps := s.cluster.Client.CoreV1().ConfigMaps(s.namespace) // stands for the Fleet
	owner, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "fleet"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(t, "coders", true)
	o.Owner = &metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}
	a, err := kube.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	spec := specOf()
	if _, err := a.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.Destroy(t.Context(), spec.ID), a.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := maps.Delete(ctx, owner.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "template, pool and policies are collected", func() bool {
		p, err := s.cluster.Client.NetworkingV1().NetworkPolicies(s.namespace).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(p.Items) == 0 && len(s.objects(t, extensions, "sandboxtemplates")) == 0 &&
			len(s.objects(t, extensions, "sandboxwarmpools")) == 0
	})
}
