package v1alpha1

import "muster.dev/muster/internal/fleet"

// SandboxList is the answer of GET /v1/sandboxes.
type SandboxList struct {
	Sandboxes []SandboxView `json:"sandboxes"`
	// Total counts all that fit the filters, on whatever page.
	Total int `json:"total" doc:"How many fit the filters, over all pages"`
	// Continue is what to ask for as ?continue= to get the next page; empty on
	// the last one.
	Continue string `json:"continue,omitempty" doc:"Ask with ?continue= this, and the same filters and order, for the next page; absent on the last"`
}

// SandboxWork is what a list of sandboxes says of the task one of them has.
type SandboxWork struct {
	Name    string            `json:"name,omitempty"`
	Command string            `json:"command" doc:"At most 120 characters of it"`
	Tenant  fleet.TenantID    `json:"tenant"`
	Labels  map[string]string `json:"labels,omitempty"`
	State   fleet.TaskState   `json:"state" enum:"claimed,starting,running,collecting"`
}

// SandboxTrail is what a sandbox used of late, oldest first: as many entries in
// each list, at most 40. It is kept only while somebody looks.
type SandboxTrail struct {
	At      []int64   `json:"at" doc:"When each was read: milliseconds since 1970"`
	CPU     []float64 `json:"cpu" doc:"Processors in use"`
	Memory  []int64   `json:"memory" doc:"Bytes"`
	Pids    []int64   `json:"pids"`
	IOBytes []int64   `json:"ioBytes" doc:"Read and written, bytes a second"`
}

// SandboxCounts are the sandboxes that fit every filter but that of the state.
type SandboxCounts struct {
	All      int `json:"all"`
	Working  int `json:"working" doc:"claimed: they have a task"`
	Warm     int `json:"warm" doc:"ready: they wait for one"`
	Starting int `json:"starting"`
	Other    int `json:"other" doc:"draining or failed"`
}

// SandboxRecord names the server-sent event of GET /v1/sandboxes?follow=true,
// which carries a SandboxDelta.
const SandboxRecord = "sandboxes"

// SandboxDelta is what has changed of a page of sandboxes since the last one;
// the first has everything.
type SandboxDelta struct {
	Total  int           `json:"total" doc:"How many fit the filters"`
	Counts SandboxCounts `json:"counts"`
	Offset int           `json:"offset" doc:"Of the page's first row"`
	// IDs are the page's rows in order; null where they are those of before.
	IDs []fleet.SandboxID `json:"ids" doc:"The rows of the page, in order; null where nothing came, went or moved"`
	// Rows are new on the page, or differ in more than their use.
	Rows []SandboxView `json:"rows,omitempty" doc:"Rows that are new on the page, with their trail, or that have changed in more than use"`
	// Uses are what the other rows use now, where that has changed.
	Uses []SandboxUse `json:"uses,omitempty" doc:"What the other rows use now, where it was read anew"`
}

// SandboxUse is what one sandbox uses now.
type SandboxUse struct {
	ID      fleet.SandboxID `json:"id"`
	Usage   UsageView       `json:"usage"`
	IOBytes int64           `json:"ioBytes" doc:"Read and written since the reading before, bytes a second"`
}
