package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

const (
	// rollbackManager is the field manager of specs that were put back.
	rollbackManager = "muster-rollback"
	// annotationRevision says of one spec who put it there through the API, and
	// why: it is believed only of the spec that it names.
	annotationRevision = "muster.dev/revision"
)

// revisionMark is the value of annotationRevision.
type revisionMark struct {
	Spec       string `json:"spec"` // digest
	Generation int64  `json:"generation"`
	By         string `json:"by"`
	Note       string `json:"note"`
}

// revisionOf is a spec as it was written, by whom, and why.
func revisionOf(u *unstructured.Unstructured) (written []byte, author, note string) {
	written, err := writtenOf(u)
	if err != nil {
		return nil, "", ""
	}
	var mark revisionMark
	if text := u.GetAnnotations()[annotationRevision]; text != "" && json.Unmarshal([]byte(text), &mark) == nil &&
		mark.Generation == u.GetGeneration() && mark.Spec == fleet.PolicyDigest(written) {
		return written, mark.By, mark.Note
	}
	author = "unknown"
	if f := newestOwner(u); f != nil {
		author = fmt.Sprintf("%s (%s)", f.Manager, f.Operation)
	}
	return written, author, ""
}

func writtenOf(u *unstructured.Unstructured) ([]byte, error) {
	spec, err := json.Marshal(u.Object["spec"])
	if err != nil {
		return nil, err
	}
	return v1alpha1.WrittenInCluster(v1alpha1.Metadata{Name: u.GetName(), Namespace: u.GetNamespace()}, spec)
}

// ownsSpec tells whether a field manager owns a part of the spec.
func ownsSpec(f *metav1.ManagedFieldsEntry) bool {
	return f.Subresource == "" && f.FieldsV1 != nil && bytes.Contains(f.FieldsV1.GetRawBytes(), []byte(`"f:spec"`))
}

// newestOwner is who wrote a part of the spec last; nil: not known.
func newestOwner(u *unstructured.Unstructured) *metav1.ManagedFieldsEntry {
	var newest *metav1.ManagedFieldsEntry
	fields := u.GetManagedFields()
	for i := range fields {
		f := &fields[i]
		if ownsSpec(f) && (newest == nil || f.Time != nil && (newest.Time == nil || newest.Time.Before(f.Time))) {
			newest = f
		}
	}
	return newest
}

// tools are those that apply objects again and again, by what they leave.
var tools = []struct {
	name     string
	managers []string
	marks    []string // labels or annotations
}{
	{"Argo CD", []string{"argocd-controller", "argocd-application-controller"}, []string{"argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"}},
	{"Flux", []string{"kustomize-controller", "helm-controller"}, []string{"kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"}},
	{"Helm", []string{"helm"}, []string{"meta.helm.sh/release-name"}},
}

// keptBy says in words what would undo a change of the spec, and what to do
// about it; "": nothing that is known.
func keptBy(u *unstructured.Unstructured) string {
	fields := u.GetManagedFields()
	for _, t := range tools {
		marked := slices.ContainsFunc(t.marks, func(k string) bool { return u.GetLabels()[k] != "" || u.GetAnnotations()[k] != "" })
		owned := slices.ContainsFunc(fields, func(f metav1.ManagedFieldsEntry) bool {
			return ownsSpec(&f) && slices.Contains(t.managers, f.Manager)
		})
		if marked || owned {
			return t.name + " applies this fleet and would put its own specification back: revert the change where it takes it from (git revert), or pause it"
		}
	}
	for i := range fields {
		if f := &fields[i]; ownsSpec(f) && f.Operation == metav1.ManagedFieldsOperationApply {
			return fmt.Sprintf("the field manager %q owns the specification by server-side apply, whose next apply would conflict with this one or undo it: apply the earlier file with it", f.Manager)
		}
	}
	return ""
}

// Change is a spec to be put back.
type Change struct {
	Key
	Written []byte // as Fleet has it
	By      string
	Note    string
	Dry     bool
	Force   bool // also where something else would undo it
}

// PutBack replaces the spec of a fleet's object, and says what may undo that
// later. The API server checks it; ErrConflict, in words, where something else
// keeps the object as it is.
func PutBack(ctx context.Context, client dynamic.Interface, c Change) (warnings []string, err error) {
	spec, err := v1alpha1.SpecOf(c.Written)
	if err != nil {
		return nil, fmt.Errorf("read the revision: %w: %w", fleet.ErrCorrupt, err)
	}
	var seen int64
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() (err error) {
		u, err := client.Resource(Resource).Namespace(c.Namespace).Get(ctx, c.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if seen != 0 && u.GetGeneration() != seen {
			return errMeanwhile // else it was our own status
		}
		seen = u.GetGeneration()
		warnings, err = c.put(ctx, client, u, spec)
		return err
	})
	return warnings, putFault(c, err)
}

var errMeanwhile = fmt.Errorf("somebody else changed the fleet at the same moment; look at it and ask again: %w", fleet.ErrConflict)

// put replaces the spec of an object that was read.
func (c *Change) put(ctx context.Context, client dynamic.Interface, u *unstructured.Unstructured, spec []byte) (warnings []string, err error) {
	if why := keptBy(u); why != "" {
		if !c.Force {
			return nil, fmt.Errorf("%s; or ask again with force: %w", why, fleet.ErrConflict)
		}
		warnings = append(warnings, why)
	}
	if u.GetAnnotations()["kubectl.kubernetes.io/last-applied-configuration"] != "" {
		warnings = append(warnings, "the fleet was made with kubectl apply: the next apply of its file puts the file's specification back")
	}
	var tree map[string]any
	if err := kjson.Unmarshal(spec, &tree); err != nil { // numbers as the dynamic client wants them
		return nil, fmt.Errorf("read the revision: %w: %w", fleet.ErrCorrupt, err)
	}
	u.Object["spec"] = tree
	now, err := writtenOf(u)
	if err != nil {
		return nil, err
	}
	mark, err := json.Marshal(revisionMark{Spec: fleet.PolicyDigest(now), Generation: u.GetGeneration() + 1, By: c.By, Note: c.Note})
	if err != nil {
		return nil, err
	}
	notes := u.GetAnnotations()
	if notes == nil {
		notes = map[string]string{}
	}
	notes[annotationRevision] = string(mark)
	u.SetAnnotations(notes)
	o := metav1.UpdateOptions{FieldManager: rollbackManager, FieldValidation: metav1.FieldValidationStrict}
	if c.Dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	_, err = client.Resource(Resource).Namespace(c.Namespace).Update(ctx, u, o)
	return warnings, err
}

// putFault says why an object was refused.
func putFault(c Change, err error) error {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fleet.ErrConflict), errors.Is(err, fleet.ErrCorrupt):
		return err
	case apierrors.IsConflict(err):
		return errMeanwhile
	case (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)) && errors.As(err, &status):
		return refusal(status.Status())
	}
	return fault("update", "fleets.muster.dev", c.Namespace, err)
}

// refusal is what the API server finds wrong, field by field.
func refusal(s metav1.Status) error {
	var errs []error
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Field != "" {
				errs = append(errs, &fleet.FieldError{Field: c.Field, Wrong: strings.TrimSuffix(c.Message, "."), Right: "what the cluster's definition of a Fleet allows"})
			}
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("%s: %w", s.Message, fleet.ErrInvalid)
	}
	return errors.Join(errs...)
}
