package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// sample is the one number that a query gave.
type sample struct {
	value  string
	at     time.Time // of the evaluation
	absent bool      // there is none
}

// answer is the envelope of all answers.
type answer struct {
	Status   string   `json:"status"`
	Error    string   `json:"error"`
	Warnings []string `json:"warnings"`
	// IsPartial is what VictoriaMetrics adds where a part of its stores is away.
	IsPartial bool `json:"isPartial"`
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// parse reads an answer; said is the server's error, where it has one.
func parse(body []byte) (x sample, said string, err error) {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return x, "", fmt.Errorf("the answer is none of Prometheus: %.60q", body)
	}
	switch {
	case a.Status != "success":
		if a.Error == "" {
			return x, "", fmt.Errorf("the answer is none of Prometheus: %.60q", body)
		}
		return x, a.Error, errors.New(a.Error)
	case len(a.Warnings) > 0:
		return x, "", fmt.Errorf("the answer may be in part only: %s", a.Warnings[0])
	case a.IsPartial:
		return x, "", errors.New("the answer is in part only")
	}
	x, err = a.sample()
	return x, "", err
}

func (a answer) sample() (sample, error) {
	switch a.Data.Type {
	case "scalar":
		var p point
		err := json.Unmarshal(a.Data.Result, &p)
		return sample{value: p.value, at: p.at}, err
	case "vector":
		var all []struct {
			Value     *point          `json:"value"`
			Histogram json.RawMessage `json:"histogram"`
		}
		if err := json.Unmarshal(a.Data.Result, &all); err != nil {
			return sample{}, err
		}
		switch {
		case len(all) == 0:
			return sample{absent: true}, nil
		case len(all) > 1:
			return sample{}, fmt.Errorf("the query gives %d series, and one number is wanted; sum(…) adds them up", len(all))
		case all[0].Value == nil:
			return sample{}, errors.New("the query gives a histogram, and a number is wanted")
		}
		return sample{value: all[0].Value.value, at: all[0].Value.at}, nil
	}
	return sample{}, fmt.Errorf("the query gives a %.20q, and one number is wanted", a.Data.Type)
}

// point is [time, "value"].
type point struct {
	at    time.Time
	value string
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *point) UnmarshalJSON(b []byte) error {
	var pair []json.RawMessage
	var at float64
	if err := json.Unmarshal(b, &pair); err != nil || len(pair) != 2 {
		return fmt.Errorf("%.40q is no sample", b)
	}
	if err := json.Unmarshal(pair[0], &at); err != nil || at < 0 || at > 1e11 {
		return fmt.Errorf("%.40q has no time", b)
	}
	if err := json.Unmarshal(pair[1], &p.value); err != nil {
		return fmt.Errorf("%.40q has no value", b)
	}
	s, part := math.Modf(at)
	p.at = time.Unix(int64(s), int64(part*1e9))
	return nil
}
