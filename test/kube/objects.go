package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
)

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Namespace makes a namespace in which pods can be made at once, with labels of
// the form key=value, and removes it with all there is in it after the test.
func (c *Cluster) Namespace(t testing.TB, labels ...string) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: map[string]string{}}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		ns.Labels[k] = v
	}
	made, err := c.Client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Client.CoreV1().Namespaces().Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("remove the namespace %s: %v", made.Name, err)
		}
	})
	c.await(t, "the service account of "+made.Name, func(context.Context) error { return accountExists(c.Client, made.Name) })
	return made.Name
}

// ServiceAccountConfig makes a service account, where it is not there yet, and
// reaches the API server as that account. It has no rights but those that the
// test gives it.
func (c *Cluster) ServiceAccountConfig(t testing.TB, namespace, name string) *rest.Config {
	t.Helper()
	accounts := c.Client.CoreV1().ServiceAccounts(namespace)
	_, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatalf("make the service account %s: %v", name, err)
	}
	token, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("make a token for the service account %s: %v", name, err)
	}
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken, config.QPS, config.UserAgent = token.Status.Token, -1, "kubetest/"+name
	return config
}

// InstallCRDs makes the custom resources of the documents, updates those that
// are there already, and returns once they are served. They stay until the
// process ends: another test may use them.
func (c *Cluster) InstallCRDs(t testing.TB, documents ...[]byte) {
	t.Helper()
	for _, doc := range documents {
		d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(doc), 4096)
		for {
			crd := &unstructured.Unstructured{}
			err := d.Decode(&crd.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("read a CRD: %v", err)
			}
			if len(crd.Object) > 0 {
				c.installCRD(t, crd)
			}
		}
	}
}

func (c *Cluster) installCRD(t testing.TB, crd *unstructured.Unstructured) {
	t.Helper()
	crds := c.Dynamic.Resource(crdResource)
	c.await(t, "the CRD "+crd.GetName(), func(ctx context.Context) error {
		_, err := crds.Create(ctx, crd, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		old, err := crds.Get(ctx, crd.GetName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if old.GetDeletionTimestamp() != nil {
			return errors.New("it is being removed")
		}
		crd.SetResourceVersion(old.GetResourceVersion())
		_, err = crds.Update(ctx, crd, metav1.UpdateOptions{})
		return err
	})
	c.await(t, "the API of "+crd.GetName(), func(ctx context.Context) error { return c.served(ctx, crd) })
}

// served says whether each version of a custom resource answers.
func (c *Cluster) served(ctx context.Context, crd *unstructured.Unstructured) error {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		version, _ := v.(map[string]any)
		if served, _ := version["served"].(bool); !served {
			continue
		}
		name, _ := version["name"].(string)
		gvr := schema.GroupVersionResource{Group: group, Version: name, Resource: plural}
		if _, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1}); err != nil {
			return err
		}
		// Clients go by discovery, which is later.
		list, err := c.Client.Discovery().ServerResourcesForGroupVersion(gvr.GroupVersion().String())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
			return fmt.Errorf("%s does not list %s yet", gvr.GroupVersion(), plural)
		}
	}
	return nil
}

// await polls until the condition holds, half a minute at the most.
func (c *Cluster) await(t testing.TB, what string, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not there after 30 s: %v", what, errors.Join(err, c.servers.ended()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}
