package kube

import (
	"testing"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"

	kubetest "muster.dev/muster/test/kube"
)

// TestMain takes the pauses of client-go's error handling away: they are of the
// process, and would be years in a bubble of synctest.
func TestMain(m *testing.M) {
	utilruntime.ErrorHandlers = nil
	kubetest.Main(m)
}
