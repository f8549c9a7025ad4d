package kube

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Access says how to reach an API server. The zero value is what everybody
// expects: in a pod its service account, else $KUBECONFIG, else
// ~/.kube/config.
type Access struct {
	Kubeconfig string // a file; empty: see above
	Context    string // of the kubeconfig; empty: its current one
	// QPS and Burst bound our own requests per second; 0: 200 and 400. The API
	// server's priority and fairness is the real bound, and its 429s are obeyed.
	QPS   float32
	Burst int
	// UserAgent names us in the API server's logs; empty: muster.
	UserAgent string
}

// ErrNoCluster says that no API server was named anywhere.
var ErrNoCluster = errors.New("no Kubernetes cluster: not in a pod, and neither $KUBECONFIG nor ~/.kube/config names one")

// Config returns the client configuration and the namespace to work in: that
// of the pod or of the kubeconfig's context, else "default".
func (a Access) Config() (*rest.Config, string, error) {
	c, ns, err := a.load()
	if err != nil {
		return nil, "", err
	}
	c.QPS, c.Burst = a.QPS, a.Burst
	if c.QPS == 0 {
		c.QPS, c.Burst = 200, 400
	}
	if c.UserAgent = a.UserAgent; c.UserAgent == "" {
		c.UserAgent = Owner
	}
	return c, ns, nil
}

func (a Access) load() (*rest.Config, string, error) {
	if a.Kubeconfig == "" && a.Context == "" {
		c, err := rest.InClusterConfig()
		if err == nil {
			return c, podNamespace(), nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, "", fmt.Errorf("reach the API server from this pod: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.Kubeconfig
	cc := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: a.Context})
	c, err := cc.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, "", ErrNoCluster
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	ns, _, err := cc.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("read the kubeconfig: %w", err)
	}
	return c, ns, nil
}

// podNamespace is where the kubelet says this pod is.
func podNamespace() string {
	b, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if ns := strings.TrimSpace(string(b)); err == nil && ns != "" {
		return ns
	}
	return "default"
}
