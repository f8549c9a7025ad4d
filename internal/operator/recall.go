package operator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Past reads the specifications that a fleet had, newest first. It is asked only
// of fleets that ran before, and may block until ctx ends.
type Past func(ctx context.Context, k Key) ([]fleet.Revision, error)

// What may become valid, or readable, without a change of the object is looked at
// again: by a keeper after this many of its looks, by who follows after a time.
const (
	looksBetween = 10
	followAgain  = 2 * time.Second
)

// read checks an object; an invalid one changes nothing but the status. Where
// nothing runs yet, as in a process that has just begun to lead, what ran before
// is what the store says.
func (k *keeper) read(ctx context.Context, u *unstructured.Unstructured) {
	f, err := objectFleet(u)
	invalid := err != nil
	if !invalid && k.op.o.Check != nil {
		// What only keeps it from running here may pass by itself.
		if err = k.op.o.Check(f); !errors.Is(err, fleet.ErrInvalid) {
			err = nil
		}
	}
	k.recheck = time.Time{}
	if err == nil {
		k.bad, k.fleet = nil, f
		return
	}
	if k.bad == nil || k.bad.Error() != err.Error() {
		k.op.o.Logger.Warn("a fleet is invalid; what ran before, if anything, goes on", "fleet", k.key.String(), "error", err)
	}
	k.bad = err
	if !invalid {
		k.recheck = k.op.o.Clock().Add(looksBetween * k.op.o.Every)
	}
	if k.fleet.Spec != nil {
		return
	}
	last, rerr := recall(ctx, k.op.o.Past, u)
	switch {
	case rerr != nil:
		k.problem(fmt.Errorf("read its last good spec: %w", rerr))
		k.recheck = k.op.o.Clock().Add(looksBetween * k.op.o.Every)
	case !invalid && (last.Spec == nil || bytes.Equal(last.Written, f.Written)):
		// It has no other: starting it, again and again, says what is missing.
		k.bad, k.fleet, k.recheck = nil, f, time.Time{}
	default:
		k.failed, k.fleet = nil, last
	}
}

// objectFleet reads an object.
func objectFleet(u *unstructured.Unstructured) (Fleet, error) {
	spec, err := parse(u)
	if err != nil {
		return Fleet{}, err
	}
	f := Fleet{Key: Key{u.GetNamespace(), u.GetName()}, UID: string(u.GetUID()), Spec: spec}
	f.Written, f.Author, f.Note = revisionOf(u)
	return f, nil
}

func parse(u *unstructured.Unstructured) (*v1alpha1.Fleet, error) {
	spec, ok := u.Object["spec"]
	if !ok {
		spec = map[string]any{}
	}
	js, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	return v1alpha1.FromCluster(v1alpha1.Metadata{
		Namespace: u.GetNamespace(), Name: u.GetName(), Labels: u.GetLabels(),
	}, js)
}

// hasRun tells whether some process ran this very object: its status has said
// since then where its API is. One that has not, or is another of the same name,
// does not inherit what the store knows.
func hasRun(u *unstructured.Unstructured) bool { return statusOf(u.Object["status"]).Endpoint != "" }

// recall is the newest specification on record that holds still, as this object's
// fleet; without Spec where there is none.
func recall(ctx context.Context, past Past, u *unstructured.Unstructured) (Fleet, error) {
	if past == nil || !hasRun(u) {
		return Fleet{}, nil
	}
	f := Fleet{Key: Key{u.GetNamespace(), u.GetName()}, UID: string(u.GetUID())}
	revisions, err := past(ctx, f.Key)
	if err != nil {
		return Fleet{}, err
	}
	for i, r := range revisions {
		spec, err := v1alpha1.SpecOf(r.Spec)
		if err != nil {
			continue
		}
		f.Spec, err = v1alpha1.FromCluster(v1alpha1.Metadata{Namespace: f.Namespace, Name: f.Name, Labels: u.GetLabels()}, spec)
		if err != nil {
			continue // of an older version, which took more
		}
		f.Revision, f.Written, f.Author, f.Note = r.Number, r.Spec, r.Author, r.Note
		if i > 0 {
			f.Author, f.Note = "muster", fmt.Sprintf("revision %d again: what came after it is not valid any more", r.Number)
		}
		return f, nil
	}
	return Fleet{}, nil
}

// invalid is what is said of a spec that is not in force.
func (k *keeper) invalid() Problem {
	text := k.bad.Error()
	switch {
	case k.runner != nil && k.fleet.Revision != 0:
		text = fmt.Sprintf("revision %d, the last good spec, goes on; %s", k.fleet.Revision, text)
	case k.runner != nil:
		text = "the last good spec goes on; " + text
	case k.failed != nil:
		text += "; " + k.failed.Error()
	}
	return Problem{"InvalidSpec", clip(text, 8192)}
}
