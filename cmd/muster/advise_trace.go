package main

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/advise"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
	"muster.dev/muster/internal/sim/trace"
	"muster.dev/muster/internal/whatif"
)

// adviseTrace advises on a trace: of the fleet's world nothing is measured then.
func adviseTrace(ctx context.Context, s *shell, o *adviseOptions) (fleet.Advice, error) {
	var none fleet.Advice
	b, err := readFile(s, o.fleet)
	if err != nil {
		return none, err
	}
	f, err := v1alpha1.ParseFleet(b)
	if err != nil {
		return none, inFile(o.fleet, err)
	}
	written, err := v1alpha1.Written(b)
	if err != nil {
		return none, inFile(o.fleet, err)
	}
	h, tally, err := o.read(f, s.now())
	if err != nil {
		return none, err
	}
	lab, err := whatif.NewLab(h, whatif.Seen{}, whatifRules, h.Until)
	if err != nil {
		return none, err
	}
	spec, err := controlSpec(f)
	if err != nil {
		return none, err
	}
	zone, err := v1alpha1.ParseZone(o.zone)
	if err != nil {
		return none, wrongFlag("--timezone", err)
	}
	series := tally.Series()
	_, end := series.Span()
	peaks := forecast.FromSeries(series).Report(spec.Question(fleet.ForecastQuery{Zone: zone}, end))
	reader := whatif.New(whatif.Options{Parse: v1alpha1.ParseFleet})
	return advise.Make(ctx, advise.Input{Lab: lab, Fleet: f, Written: written, Apply: reader.Apply, Forecast: &peaks, Now: h.Until})
}

// read reads the trace: its end is that of the history.
func (o *adviseOptions) read(f *v1alpha1.Fleet, now time.Time) (*whatif.History, *forecast.Tally, error) {
	in, err := os.Open(o.trace)
	if err != nil {
		return nil, nil, usageError("--trace: %v", err)
	}
	defer func() { _ = in.Close() }()
	rows, err := trace.NewReader(in, fileName(o.trace), nil)
	if err != nil {
		return nil, nil, usageError("%v", err)
	}
	defer func() { _ = rows.Close() }()
	since, err := momentOf("since", o.since, now)
	if err != nil {
		return nil, nil, err
	}
	until, err := momentOf("until", o.until, now)
	if err != nil {
		return nil, nil, err
	}
	h, tally := &whatif.History{}, &forecast.Tally{}
	for {
		row, err := rows.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, usageError("%v", err)
		}
		at, length := trace.Time(row.Arrival), time.Duration(row.Duration)*time.Millisecond
		if at.Before(since) || !until.IsZero() && !at.Before(until) || o.most > 0 && length > o.most {
			continue
		}
		if err := tally.Add(at, length); err != nil {
			return nil, nil, usageError("%v", err)
		}
		h.Add(f.Spec.Templates[0].Name, whatif.Task{Arrival: at, Duration: length})
		h.Until = at.Add(time.Minute)
	}
	h.Bound()
	return h, tally, nil
}
