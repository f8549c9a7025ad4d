package kubetest_test

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	kubetest "muster.dev/muster/test/kube"
)

func TestMain(m *testing.M) { kubetest.Main(m) }

func TestTheClusterStarts(t *testing.T) {
	c := kubetest.Start(t)
	v, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if v.GitVersion != "v1.37.2" {
		t.Errorf("the API server says it is %s, want v1.37.2", v.GitVersion)
	}
	c.Namespace(t)
}

func priorityClass(name string, value int32) *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value}
}

func TestTheAPIServerGoesAndComes(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	_, here := dedicated(t, c, kubetest.GroupOptions{Name: "outage", Min: 1, Max: 1})
	before := awaitPod(t, c, onePod(t, c, ns, "before", here), "ready", ready)
	c.StopAPIServer()
	if _, err := c.Client.CoreV1().Pods(ns).Get(t.Context(), before.Name, metav1.GetOptions{}); err == nil {
		t.Error("the API server answers, though it is stopped")
	}
	c.StartAPIServer()
	awaitPod(t, c, onePod(t, c, ns, "after", here), "ready", ready)
	awaitPod(t, c, before, "as it was", func(p *corev1.Pod) bool { return p.UID == before.UID && ready(p) })
}

func TestAServiceAccountHasNoRights(t *testing.T) {
	c := kubetest.Start(t)
	ns := c.Namespace(t)
	account, err := kubernetes.NewForConfig(c.ServiceAccountConfig(t, ns, "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := account.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("an account without a role lists pods: %v, want forbidden", err)
	}
	who, err := account.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := who.Status.UserInfo.Username, "system:serviceaccount:"+ns+":nobody"; got != want {
		t.Errorf("the account is %s, want %s", got, want)
	}
}
