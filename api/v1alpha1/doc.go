// Package v1alpha1 is the Fleet, the Task and the Schedule as users write
// them. The same types serve the YAML file, the HTTP API and the Kubernetes
// custom resource. This package also holds defaults, validation (errors are
// [fleet.FieldError] with the path of the field) and the conversion into the
// parsed nouns of package fleet. It may import internal/fleet and parsers
// only.
package v1alpha1
