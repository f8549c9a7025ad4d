package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/forecast"
)

// forecastFlags are what `muster forecast` was asked.
type forecastFlags struct {
	horizon, template, zone string
	backtest                bool
	trace, fleet            string
	most                    time.Duration
}

func newForecastCommand(s *shell) *cobra.Command {
	var (
		in  forecastFlags
		out *outputFlag
	)
	c := &cobra.Command{
		Use:   "forecast",
		Short: "Show the weekly pattern, its peaks, and what to expect",
		Long: `Show what the fleet expects of its load, from its own history: the week as a
chart, the peaks in words with what it would take to have warm sandboxes for
them, and quantiles of arrivals and of demand (tasks waiting or running at once)
over the horizon. The last line says how much history that rests on and what is
assumed. A forecast only ever raises what is kept warm.

--backtest also makes such forecasts at many times of the past, each from what
was known then, and compares them with two simple rules.

--trace works on a file instead of a server: lines of
arrival_unix_seconds,duration_seconds[,class] in the order of time. Prices and
what is kept warm are then those of --fleet, where it is given.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := in.ask(cmd.Context(), s)
			if err != nil {
				return err
			}
			if done, err := out.structured(s, f); done {
				return err
			}
			return printForecast(s, f)
		},
	}
	f := c.Flags()
	f.StringVar(&in.horizon, "horizon", "1d", "how far ahead: `1m` to 2w, as 90m, 6h, 3d")
	f.StringVar(&in.template, "template", "", "of this `template` alone")
	f.StringVar(&in.zone, "timezone", "UTC", "`zone` of the weekly pattern, as Europe/Warsaw")
	f.BoolVar(&in.backtest, "backtest", false, "also how such forecasts did in the past")
	f.StringVar(&in.trace, "trace", "", "forecast from a `file` of tasks (.csv, .csv.gz; - is standard input) instead of a server")
	f.DurationVar(&in.most, "max-duration", 0, "with --trace: leave out tasks longer than this `duration`; 0 takes all")
	f.StringVar(&in.fleet, "fleet", "", "with --trace: `file` of a Fleet, for its prices and floors")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func (in *forecastFlags) ask(ctx context.Context, s *shell) (fleet.Forecast, error) {
	q := fleet.ForecastQuery{Template: in.template, Backtest: in.backtest}
	var err error
	if q.Horizon, err = v1alpha1.ParseHorizon(in.horizon); err != nil {
		return fleet.Forecast{}, wrongFlag("--horizon", err)
	}
	if q.Zone, err = v1alpha1.ParseZone(in.zone); err != nil {
		return fleet.Forecast{}, wrongFlag("--timezone", err)
	}
	switch {
	case in.trace != "" && in.template != "":
		return fleet.Forecast{}, usageError("--template is for a server's history; a trace has no templates")
	case in.trace != "":
		return in.offline(s, q)
	case in.fleet != "" || in.most != 0:
		return fleet.Forecast{}, usageError("--fleet and --max-duration go with --trace")
	}
	c, err := s.connect()
	if err != nil {
		return fleet.Forecast{}, err
	}
	defer c.Close()
	return c.Forecast(ctx, q)
}

// wrongFlag is a mistake in the value of a flag.
func wrongFlag(flag string, err error) error {
	var e *fleet.FieldError
	if errors.As(err, &e) {
		return usageError("%s %s; want %s", flag, e.Wrong, e.Right)
	}
	return usageError("%s: %v", flag, err)
}

// offline forecasts from a trace, at its end.
func (in *forecastFlags) offline(s *shell, q fleet.ForecastQuery) (fleet.Forecast, error) {
	series, err := readTrace(s, in.trace, in.most)
	if err != nil {
		return fleet.Forecast{}, err
	}
	_, end := series.Span()
	ask := forecast.Question{Now: end, Horizon: q.Horizon, Zone: q.Zone}
	if in.fleet != "" {
		b, err := readFile(s, in.fleet)
		if err != nil {
			return fleet.Forecast{}, err
		}
		f, err := v1alpha1.ParseFleet(b)
		if err != nil {
			return fleet.Forecast{}, usageError("%s: %v", fileName(in.fleet), err)
		}
		spec, err := controlSpec(f)
		if err != nil {
			return fleet.Forecast{}, err
		}
		ask = spec.Question(q, end)
		ask.Backtest = false
	}
	h := forecast.FromSeries(series)
	f := h.Report(ask)
	if q.Backtest { // over all of the trace, not the weeks a history keeps
		b := forecast.Backtest(series, q.Zone)
		f.Backtest = &b
	}
	return f, nil
}
