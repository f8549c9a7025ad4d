package kubetest_test

import (
	"testing"

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
