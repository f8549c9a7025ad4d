package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/control"
	"muster.dev/muster/internal/fleet"
)

// submitScheduled submits the task of a schedule that fired.
func (d *daemon) submitScheduled(ctx context.Context, name string, task []byte, key string) (fleet.TaskID, error) {
	var spec v1alpha1.TaskSpec
	if err := json.Unmarshal(task, &spec); err != nil {
		return "", fmt.Errorf("the task of schedule %s cannot be read: %w", name, err)
	}
	spec.IdempotencyKey = key
	if spec.Name == "" {
		spec.Name = name
	}
	resolved, err := d.cfg.fleet.ResolveTask(spec, time.Now())
	if err != nil {
		return "", err
	}
	got, err := d.db.Submit(ctx, []fleet.Task{{Spec: resolved}})
	if err != nil {
		return "", err
	}
	return got[0].ID, nil
}

// floors turns the calendar of a fleet into rules.
func floors(f *v1alpha1.Fleet) ([]control.Floor, error) {
	var out []control.Floor
	for i, fl := range f.Spec.Capacity.Floors {
		rule, err := calendar.Parse(fl.Cron, fl.Timezone)
		if err != nil {
			return nil, fmt.Errorf("spec.capacity.floors[%d]: %w", i, err)
		}
		length, err := duration(fmt.Sprintf("spec.capacity.floors[%d].for", i), fl.For)
		if err != nil {
			return nil, err
		}
		out = append(out, control.Floor{Template: fl.Template, Rule: rule, For: length, Min: fl.Min})
	}
	return out, nil
}
