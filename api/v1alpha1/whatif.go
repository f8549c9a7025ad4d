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

// PatchRequest is the body of POST /v1/fleet/patch.
type PatchRequest struct {
	Patch  json.RawMessage `json:"patch" doc:"A piece of a Fleet, {\"spec\": {…}}: objects are merged, null removes a field, items with names are merged by name, other lists are replaced"`
	From   int             `json:"from,omitempty" doc:"The revision that the patch is for; 409 when another is the newest; 0: whichever is"`
	Note   string          `json:"note,omitempty" doc:"Why, for people; at most 200 bytes"`
	By     string          `json:"by,omitempty" doc:"Who asks, for people; at most 64 characters"`
	DryRun bool            `json:"dryRun,omitempty" doc:"Check, and show what would change"`
	Force  bool            `json:"force,omitempty" doc:"In a cluster: also where something else applies the object and may put its own back"`
}

// PatchView is the answer of POST /v1/fleet/patch.
type PatchView struct {
	From     int64        `json:"from" doc:"The revision that was the newest"`
	Revision int64        `json:"revision,omitempty" doc:"Number of the new revision; absent with dryRun, and in a cluster, where it follows"`
	DryRun   bool         `json:"dryRun,omitempty"`
	Summary  string       `json:"summary"`
	Changes  []SpecChange `json:"changes"`
	Diff     string       `json:"diff"`
	Awaits   []string     `json:"awaits,omitempty" doc:"Fields that only a new start takes over"`
	Kept     []string     `json:"kept,omitempty" doc:"Where the files that were replaced are"`
	Warnings []string     `json:"warnings,omitempty"`
}
