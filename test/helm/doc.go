// Package helm renders the chart of deploy/helm as helm itself does, through
// helm's own packages: for the plain manifests of deploy/manifests, and for the
// tests. It is a module of its own, so that helm is no dependency of Muster.
package helm
