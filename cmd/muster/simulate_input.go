package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/plan"
	"muster.dev/muster/internal/sim"
	"muster.dev/muster/internal/sim/trace"
)

// keepRows is how many rows of a trace are kept in memory (24 MB); longer ones
// are read again for each policy. Standard input can be read but once.
const (
	keepRows  = 1_000_000
	stdinRows = 20_000_000
)

// openTrace checks the trace and makes it the source of the simulation.
func (o *simulateOptions) openTrace(s *shell, bar *progress, c *sim.Config, sel trace.Selection) error {
	if o.own != nil {
		c.Pools = o.own.templates
		return o.multiply(c, trace.Select(o.own.rows, sel), sel)
	}
	if o.trace == "" {
		return usageError("--trace is missing: name a CSV file of arrival_unix_seconds,duration_seconds")
	}
	var classes *trace.Classes
	switch o.class {
	case "":
	case "template":
		classes = &trace.Classes{}
	default:
		return usageError("--class %q is unknown; want template", o.class)
	}
	src, err := o.source(s, bar, classes)
	if err != nil {
		return err
	}
	bar.stage("reading the trace", 1)
	most := keepRows
	if o.trace == "-" {
		most = stdinRows
	}
	chosen := trace.Select(src, sel)
	rows, whole, err := trace.Load(chosen, most)
	var wrong *trace.Error
	switch {
	case errors.As(err, &wrong) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission):
		return usageError("%v", err)
	case err != nil:
		return err
	case whole && len(rows) == 0:
		return usageError("%s: no task lies between --from, --to and --max-duration", fileName(o.trace))
	case whole:
		chosen = rows
	case o.trace == "-":
		return usageError("standard input has more than %d tasks; put the trace into a file, which is read in passes", stdinRows)
	}
	if classes != nil {
		if c.Pools, err = o.pools(chosen, whole, classes); err != nil {
			return err
		}
	}
	return o.multiply(c, chosen, sel)
}

// multiply makes the load of a larger fleet of what was chosen.
func (o *simulateOptions) multiply(c *sim.Config, chosen trace.Source, sel trace.Selection) error {
	jitter, err := sim.ParseSeconds(o.jitter)
	if err != nil {
		return usageError("--jitter: %v", err)
	}
	if o.copies < 1 {
		return usageError("--copies %d is out of range; want 1 to %d", o.copies, trace.MaxCopies)
	}
	many, err := trace.Multiply(chosen, trace.Scale{Copies: o.copies, Jitter: jitter, Seed: o.seed})
	if err != nil {
		return usageError("--copies: %v", err)
	}
	c.Trace = trace.Select(many, trace.Selection{To: sel.To}) // a late copy may fall out
	return nil
}

// source opens the file, or standard input for "-".
func (o *simulateOptions) source(s *shell, bar *progress, classes *trace.Classes) (trace.Source, error) {
	if o.trace == "-" {
		return once{s, classes}, nil
	}
	st, err := os.Stat(o.trace)
	if err != nil {
		return nil, usageError("--trace: %v", err)
	}
	if st.IsDir() {
		return nil, usageError("--trace %s is a directory; want a CSV file", o.trace)
	}
	return trace.File{Path: o.trace, Classes: classes, Progress: func(n int64) {
		bar.tell("", float64(n)/float64(max(1, st.Size())))
	}}, nil
}

// once is standard input as a source.
type once struct {
	s       *shell
	classes *trace.Classes
}

func (o once) Open() (trace.Stream, error) {
	return trace.NewReader(o.s.in, "standard input", o.classes)
}

// pools are the values of the class column; a trace that was not kept is read
// to its end for them.
func (o *simulateOptions) pools(src trace.Source, whole bool, classes *trace.Classes) ([]string, error) {
	if !whole {
		if _, _, err := trace.Load(src, math.MaxInt); err != nil {
			return nil, usageError("%v", err)
		}
	}
	for i, name := range classes.Names {
		if name == "" {
			return nil, usageError("%s: --class template: some rows have no class", fileName(o.trace))
		}
		if len(name) > 63 {
			return nil, usageError("%s: class %q is too long for a template", fileName(o.trace), classes.Names[i])
		}
	}
	return classes.Names, nil
}

// readFleet reads the Fleet of --fleet and uses it.
func (o *simulateOptions) readFleet(c *sim.Config) (string, error) {
	b, err := os.ReadFile(o.fleet)
	if err != nil {
		return "", usageError("--fleet: %v", err)
	}
	f, err := v1alpha1.ParseFleet(b)
	if err != nil {
		return "", usageError("--fleet %s: %v", o.fleet, err)
	}
	first, err := useFleet(c, f)
	if err != nil {
		return "", usageError("--fleet %s: %v", o.fleet, err)
	}
	return first, nil
}

// useFleet takes over what a Fleet says of sizing, and returns the name of its
// first template.
func useFleet(c *sim.Config, f *v1alpha1.Fleet) (string, error) {
	spec, err := controlSpec(f)
	if err != nil {
		return "", err
	}
	p := spec.Policy
	p.Templates = map[string]plan.TemplatePolicy{}
	for i, t := range spec.Templates {
		if i == 0 {
			p.First = t.Name
		}
		p.Templates[t.Name] = plan.TemplatePolicy{Min: t.Min, MaxAge: t.MaxAge}
	}
	spec.Policy = p
	c.Muster.Policy = p
	if len(spec.Floors) > 0 {
		c.Muster.Floors = spec.FloorsAt
	}
	if p.Budget.NodeHour > 0 {
		c.Model.NodeHour = p.Budget.NodeHour
	}
	return p.First, nil
}

// traceTime reads a moment on the clock of a trace: Unix seconds, a date or
// RFC 3339; UTC unless it says otherwise.
func traceTime(text string) (time.Time, error) {
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		if !(v >= 0 && v < 253402300800) {
			return time.Time{}, fmt.Errorf("%q is out of range; want Unix seconds", text)
		}
		return time.UnixMilli(int64(math.Round(v * 1000))).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; want a date (2026-03-01), RFC 3339 or Unix seconds", text)
}
