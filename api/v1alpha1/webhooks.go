package v1alpha1

import (
	"fmt"
	"slices"
	"strings"
)

// Webhooks says who is told of what, and how deliveries are signed.
type Webhooks struct {
	// Secret names the secret that deliveries are signed with, in the header
	// Muster-Signature. It is read for each, and no task can have it. Empty:
	// they are not signed.
	Secret string `json:"secret,omitempty"`
	// Endpoints are told of what happens to the fleet; tasks name their own
	// addresses.
	Endpoints []WebhookEndpoint `json:"endpoints,omitempty" maxItems:"16"`
}

// WebhookEndpoint is an address that is told of events of the fleet, each as a
// CloudEvent by POST.
type WebhookEndpoint struct {
	URL string `json:"url" kube:"text=2048"`
	// Events are the kinds it is told of. Empty: those of [ScalingEvents].
	Events []string `json:"events,omitempty" maxItems:"32"`
}

// ScalingEvents are the kinds of events that tell how a fleet is sized, what
// keeps it from it, and what people have to look after.
var ScalingEvents = []string{
	"scale_out", "scale_in", "node_scale", "node_cordon", "node_uncordon", "node_release", "breaker_open", "gave_up", "cap_binds", "signals_missing", "recovered",
	"budget_binds", "budget_free", "budget_warning", "dedication_breach", "dedication_restored", "fleet_changed",
}

func (s *FleetSpec) validateWebhooks(ps *problems) {
	w := &s.Webhooks
	if n := w.Secret; n != "" {
		switch {
		case !isSecretName(n):
			ps.addf("spec.webhooks.secret", secretName, "%q cannot be one", clip(n))
		case s.Secrets == Secrets{}:
			ps.addf("spec.webhooks.secret", "spec.secrets.dir or spec.secrets.env as well", "names a secret, and there are none")
		}
	}
	if len(w.Endpoints) > 16 {
		ps.addf("spec.webhooks.endpoints", "at most 16", "has %d", len(w.Endpoints))
	}
	seen := map[string]bool{}
	for i, e := range w.Endpoints {
		field := fmt.Sprintf("spec.webhooks.endpoints[%d]", i)
		if e.URL == "" {
			ps.addf(field+".url", "an http or https URL", "is missing")
		}
		ps.webhook(field+".url", e.URL)
		if seen[e.URL] && e.URL != "" {
			ps.addf(field+".url", "one entry for each address", "is that of another entry, too")
		}
		seen[e.URL] = true
		for k, kind := range e.Events {
			if !slices.Contains(ScalingEvents, kind) {
				ps.addf(fmt.Sprintf("%s.events[%d]", field, k), "one of "+strings.Join(ScalingEvents, ", "), "%q is unknown", clip(kind))
			}
		}
	}
}
