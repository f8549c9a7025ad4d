package gateway

import (
	"context"
	"fmt"
	"slices"
	"strings"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"muster.dev/muster/internal/fleet"
)

// Audience is what the token of a sandbox is made out to.
const Audience = "muster-runner"

// What an API server says of a pod's token beside its user (Kubernetes
// documentation, "Bound service account tokens").
const (
	extraPod  = "authentication.kubernetes.io/pod-name"
	extraUID  = "authentication.kubernetes.io/pod-uid"
	serviceAC = "system:serviceaccount:"
)

// TokenReviews returns a Verify that asks the API server each time: a token of
// a deleted pod is refused at once. It needs the right to create tokenreviews.
func TokenReviews(c kubernetes.Interface) func(ctx context.Context, bearer string) (Identity, error) {
	return func(ctx context.Context, bearer string) (Identity, error) {
		r, err := c.AuthenticationV1().TokenReviews().Create(ctx, &authv1.TokenReview{
			Spec: authv1.TokenReviewSpec{Token: bearer, Audiences: []string{Audience}},
		}, metav1.CreateOptions{})
		if err != nil {
			// Whatever it is, even a missing right of ours, it is not the
			// runner's fault.
			return Identity{}, fmt.Errorf("%w: review the identity of a runner: %w", fleet.ErrUnavailable, err)
		}
		return identityOf(r.Status)
	}
}

// identityOf reads the answer strictly: only a token of a pod, made out to us.
func identityOf(s authv1.TokenReviewStatus) (Identity, error) {
	if !s.Authenticated {
		return Identity{}, fmt.Errorf("%w: the API server does not know the token: %.200s", fleet.ErrDenied, s.Error)
	}
	if !slices.Contains(s.Audiences, Audience) {
		return Identity{}, fmt.Errorf("%w: the token is made out to %.200q, not to %s", fleet.ErrDenied, s.Audiences, Audience)
	}
	account, ok := strings.CutPrefix(s.User.Username, serviceAC)
	namespace, name, two := strings.Cut(account, ":")
	if !ok || !two || namespace == "" || name == "" {
		return Identity{}, fmt.Errorf("%w: %.200q is no service account", fleet.ErrDenied, s.User.Username)
	}
	pod, uid := only(s.User.Extra[extraPod]), only(s.User.Extra[extraUID])
	if pod == "" || uid == "" {
		return Identity{}, fmt.Errorf("%w: the token is bound to no pod", fleet.ErrDenied)
	}
	return Identity{Namespace: namespace, Pod: pod, UID: uid}, nil
}

func only(v []string) string {
	if len(v) != 1 {
		return ""
	}
	return v[0]
}
