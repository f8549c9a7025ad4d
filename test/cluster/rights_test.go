package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	kubetest "muster.dev/muster/test/kube"
)

// kubeconfigOf is a kubeconfig of a service account of the world's namespace.
func (w *world) kubeconfigOf(account string) string {
	w.t.Helper()
	r := w.c.ServiceAccountConfig(w.t, w.ns, account)
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: r.Host, CertificateAuthorityData: r.CAData, CertificateAuthority: r.CAFile}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: r.BearerToken, TokenFile: r.BearerTokenFile}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	b, err := clientcmd.Write(*c)
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// grant gives an account rights: in the namespace, and in the cluster.
func (w *world) grant(account string, local, global []rbacv1.PolicyRule) {
	w.t.Helper()
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: w.ns}}
	rbac, ctx := w.c.Client.RbacV1(), w.t.Context()
	name := w.ns + "-" + account
	must := func(err error) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
	_, err := rbac.Roles(w.ns).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: account}, Rules: local}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.RoleBindings(w.ns).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
	}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: global}, metav1.CreateOptions{})
	must(err)
	_, err = rbac.ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subject,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}, metav1.CreateOptions{})
	must(err)
}

func rule(group, resources string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: strings.Split(resources, ","), Verbs: verbs}
}

// A control plane that may not create pods says so where people look: in a
// condition of the fleet that names the verb and the resource.
func TestMissingRight(t *testing.T) {
	t.Parallel()
	w := setUp(t, options{group: kubetest.GroupOptions{Min: 1}})
	all := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	w.grant("weak", []rbacv1.PolicyRule{
		rule("muster.dev", "fleets,fleets/status,fleets/finalizers", all...), rule("coordination.k8s.io", "leases", all...),
		rule("", "events,configmaps,secrets,podtemplates", all...), rule("networking.k8s.io", "networkpolicies", all...),
		rule("events.k8s.io", "events", all...), rule("", "pods", "get", "list", "watch", "patch", "delete"),
	}, []rbacv1.PolicyRule{
		rule("", "nodes", "get", "list", "watch", "patch"), rule("", "pods", "list", "watch"),
		rule("authentication.k8s.io", "tokenreviews", "create"), rule("node.k8s.io", "runtimeclasses", "get", "list"),
		rule("scheduling.k8s.io", "priorityclasses", "get", "list"),
	})
	w.apply("agents", w.fleetSpec("capacity: {sandboxes: {min: 2, max: 4}}"))
	w.plane("serve", w.kubeconfigOf("weak")).start()
	w.until(time.Minute, "a condition names the right that is missing", func() error {
		for _, kind := range []string{"Ready", "Degraded", "Progressing"} {
			_, _, m := w.condition("agents", kind)
			if strings.Contains(m, "create") && strings.Contains(m, "pods") {
				return nil
			}
		}
		_, reason, m := w.condition("agents", "Ready")
		return fmt.Errorf("Ready: %s %s", reason, m)
	})
}
