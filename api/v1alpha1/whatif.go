package v1alpha1

import "encoding/json"

// WhatIfRequest is the body of POST /v1/whatif.
type WhatIfRequest struct {
	Since string `json:"since,omitempty" doc:"Tasks that arrived from this time on (RFC 3339), or in the time up to now (336h); absent is 14 days before until"`
	Until string `json:"until,omitempty" doc:"Up to this time (RFC 3339), or so long ago (1h); absent is now"`
	// Patch is a piece of a Fleet; see Merge.
	Patch json.RawMessage `json:"patch,omitempty" doc:"A piece of a Fleet, {\"spec\": {…}}: objects are merged, null removes a field, items with names are merged by name, other lists are replaced"`
	// Policies names rivals to set beside it.
	Policies []string `json:"policies,omitempty" maxItems:"9" doc:"fixed, fixed-p99, keda, hpa, kpa, reactive, schedule, clairvoyant"`
}
