package main

import (
	"fmt"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/control"
)

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
