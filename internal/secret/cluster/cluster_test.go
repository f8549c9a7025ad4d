package cluster

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"muster.dev/muster/internal/fleet"
)

func object(value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "s"}, Data: map[string][]byte{"KEY": []byte(value)}}
}

func TestSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.NewClientset(object("one"))
		s := &Source{Client: c, Namespace: "a", Name: "s"}
		if v, err := s.Secret(t.Context(), "KEY"); v != "one" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		if _, err := s.Secret(t.Context(), "OTHER"); !errors.Is(err, fleet.ErrNotFound) || strings.Contains(err.Error(), "one") {
			t.Error(err)
		}
		if n := len(c.Actions()); n != 1 {
			t.Errorf("%d requests for two secrets at once", n)
		}
		if _, err := c.CoreV1().Secrets("a").Update(t.Context(), object("two"), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * fresh)
		if v, err := s.Secret(t.Context(), "KEY"); v != "two" || err != nil {
			t.Errorf("after a rotation: %q, %v", v, err)
		}
	})
}

func TestRefusals(t *testing.T) {
	c := fake.NewClientset()
	if _, err := (&Source{Client: c, Namespace: "a"}).Secret(t.Context(), "KEY"); !errors.Is(err, fleet.ErrNotFound) || len(c.Actions()) > 0 {
		t.Error(err)
	}
	s := &Source{Client: c, Namespace: "a", Name: "s"}
	if _, err := s.Secret(t.Context(), "KEY"); !errors.Is(err, fleet.ErrNotFound) {
		t.Error(err)
	}
	c.PrependReactor("get", "secrets", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "s", errors.New("no"))
	})
	if _, err := s.Secret(t.Context(), "KEY"); !errors.Is(err, fleet.ErrDenied) || !strings.Contains(err.Error(), "get secret a/s") {
		t.Error(err)
	}
}
