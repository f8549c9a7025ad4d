package kube

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"muster.dev/muster/internal/fleet"
)

// What is refused by a rule of the cluster is not told as a missing right.
func TestFaultTellsRefusalsApart(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for cause, want := range map[string]struct {
		kind error
		word string
	}{
		`no PriorityClass with name muster-seat was found`:       {fleet.ErrInvalid, "placeholderPriorityClass"},
		`exceeded quota: agents, requested: pods=1`:              {fleet.ErrFull, "exceeded quota"},
		`User "system:x" cannot create resource "pods" in group`: {fleet.ErrDenied, "lacks this permission"},
	} {
		err := fault("create", "pods", apierrors.NewForbidden(pods, "seat", errors.New(cause)))
		if !errors.Is(err, want.kind) || !strings.Contains(err.Error(), want.word) {
			t.Errorf("%q is told as: %v", cause, err)
		}
	}
}
