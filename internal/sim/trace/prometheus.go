package trace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Prometheus asks a Prometheus for what a fleet was asked for. Give Arrivals,
// with Durations or Duration; or Running alone.
type Prometheus struct {
	URL    string // of the server; /api/v1/query_range is added
	Client *http.Client
	Token  string // sent as a bearer token; empty: none

	From, To time.Time
	Step     time.Duration
	// Arrivals is a query for the tasks that came in the step before each
	// point, as sum(increase(x[1m])) with a step of 1m; Durations one for their
	// mean length in seconds then, in place of which Duration stands where it
	// says nothing.
	Arrivals  string
	Durations string
	Duration  time.Duration
	// Running is a query for the tasks in flight. Each rise is an arrival, and
	// each fall the end of the one that has run longest.
	Running string
}

// The bounds of what is asked and read.
const (
	maxPoints   = 10_000 // Prometheus refuses more than 11,000 for one query
	maxAnswer   = 64 << 20
	maxQueries  = 1_000
	maxArrivals = MaxImport
)

// sample is one point of a range.
type sample struct{ at, value float64 }

// Check says what is missing.
func (p *Prometheus) Check() error {
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is no address of a Prometheus; want http://HOST:PORT", p.URL)
	case (p.Arrivals == "") == (p.Running == ""):
		return errors.New("want a query for arrivals or one for running tasks")
	case p.Arrivals != "" && p.Durations == "" && p.Duration <= 0:
		return errors.New("arrivals need the length of a task: a query or a constant")
	case p.Step < time.Second:
		return fmt.Errorf("a step of %s is too short; want 1s or more", p.Step)
	case !p.From.Before(p.To):
		return errors.New("the range ends before it begins")
	case p.To.Sub(p.From)/p.Step > maxPoints*maxQueries:
		return errors.New("the range has too many steps; want a longer step")
	}
	return nil
}

// Records asks and makes tasks of the answer, sorted.
func (p *Prometheus) Records(ctx context.Context) ([]Record, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	if p.Running != "" {
		level, err := p.ask(ctx, p.Running)
		if err != nil {
			return nil, err
		}
		return fromLevel(level, p.To)
	}
	counts, err := p.ask(ctx, p.Arrivals)
	if err != nil {
		return nil, err
	}
	lengths := map[float64]float64{}
	if p.Durations != "" {
		means, err := p.ask(ctx, p.Durations)
		if err != nil {
			return nil, err
		}
		for _, s := range means {
			lengths[s.at] = s.value
		}
	}
	return p.fromCounts(counts, lengths)
}

// fromCounts spreads the arrivals of a step evenly over it; fractions carry
// over to the next.
func (p *Prometheus) fromCounts(counts []sample, lengths map[float64]float64) ([]Record, error) {
	var out []Record
	owed, length := 0.0, p.Duration.Seconds()
	step := p.Step.Seconds()
	for _, s := range counts {
		if s.value < 0 {
			return nil, fmt.Errorf("arrivals of %g at %s are negative; want increase(), not delta()", s.value, stamp(s.at))
		}
		if v, ok := lengths[s.at]; ok && v >= 0 && v <= longest {
			length = v
		}
		owed += s.value
		n := int(math.Floor(owed + 1e-9))
		owed -= float64(n)
		if len(out)+n > maxArrivals {
			return nil, fmt.Errorf("more than %d arrivals", maxArrivals)
		}
		for i := range n {
			at := s.at - step + step*(float64(i)+0.5)/float64(n)
			out = append(out, Record{Row: Row{Arrival: toMillis(max(0, at)), Duration: toMillis(length)}})
		}
	}
	return out, nil
}

// fromLevel reads tasks off a gauge: first in, first out.
func fromLevel(level []sample, end time.Time) ([]Record, error) {
	var out []Record
	first := 0 // the longest running
	for _, s := range level {
		now := toMillis(s.at)
		want := int(math.Round(s.value))
		if want < 0 || want > maxArrivals || len(out)-first+want > maxArrivals {
			return nil, fmt.Errorf("%g running tasks at %s are out of range", s.value, stamp(s.at))
		}
		for len(out)-first > want {
			out[first].Duration = now - out[first].Arrival
			first++
		}
		for len(out)-first < want {
			out = append(out, Record{Row: Row{Arrival: now}})
		}
	}
	for ; first < len(out); first++ {
		out[first].Duration = max(0, end.UnixMilli()-out[first].Arrival)
	}
	return out, nil
}

func stamp(at float64) string { return Time(toMillis(at)).Format(time.RFC3339) }

// ask runs one query over the whole range, in as many requests as it takes.
func (p *Prometheus) ask(ctx context.Context, query string) ([]sample, error) {
	var out []sample
	for from := p.From; from.Before(p.To); from = from.Add(maxPoints * p.Step) {
		to := from.Add((maxPoints - 1) * p.Step)
		if to.After(p.To) {
			to = p.To
		}
		part, err := p.part(ctx, query, from, to)
		if err != nil {
			return nil, fmt.Errorf("ask Prometheus %q: %w", query, err)
		}
		out = append(out, part...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("ask Prometheus %q: no sample between %s and %s", query, p.From.Format(time.RFC3339), p.To.Format(time.RFC3339))
	}
	return out, nil
}

// answer is what query_range returns; see the HTTP API of Prometheus.
type answer struct {
	Status string `json:"status"`
	Error  string `json:"error"`
	Result struct {
		Type   string `json:"resultType"`
		Series []struct {
			Values [][2]any `json:"values"`
		} `json:"result"`
	} `json:"data"`
}

func (p *Prometheus) part(ctx context.Context, query string, from, to time.Time) ([]sample, error) {
	form := url.Values{
		"query": {query}, "step": {strconv.FormatFloat(p.Step.Seconds(), 'f', -1, 64)},
		"start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(p.URL, "/")+"/api/v1/query_range?"+form.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if p.Token != "" {
		req.Header.Set("Authorization", "Bearer "+p.Token)
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var a answer
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the answer: %w", err)
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%s, and what came is no answer of a Prometheus", resp.Status)
	}
	if a.Status != "success" {
		return nil, fmt.Errorf("%s: %s", resp.Status, a.Error)
	}
	return a.samples()
}

// samples takes the one series out.
func (a *answer) samples() ([]sample, error) {
	switch n := len(a.Result.Series); {
	case a.Result.Type != "matrix":
		return nil, fmt.Errorf("the answer is a %q; want a matrix", a.Result.Type)
	case n == 0:
		return nil, nil
	case n > 1:
		return nil, fmt.Errorf("it gives %d series; want one: put sum() around it", n)
	}
	var out []sample
	for _, v := range a.Result.Series[0].Values {
		at, ok := v[0].(float64)
		text, ok2 := v[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if !ok || !ok2 || err != nil || at < 0 || at > latest {
			return nil, fmt.Errorf("sample %v cannot be read", v)
		}
		if math.IsNaN(value) || math.IsInf(value, 0) {
			continue
		}
		out = append(out, sample{at, value})
	}
	return out, nil
}
