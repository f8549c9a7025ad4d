package server

import (
	"testing"

	"muster.dev/muster/internal/fleet"
)

func TestForecast(t *testing.T) {
	r := newRig(t)
	f := call[fleet.Forecast](r, "GET", "/v1/forecast", nil, 200)
	if f.HorizonSeconds != 86400 || f.Timezone != "UTC" || f.Template != "" || f.Backtest != nil {
		t.Errorf("%+v", f)
	}
	f = call[fleet.Forecast](r, "GET", "/v1/forecast?horizon=2w&template=web&timezone=Europe/Warsaw&backtest=true", nil, 200)
	if f.HorizonSeconds != 14*86400 || f.Timezone != "Europe/Warsaw" || f.Template != "web" || f.Backtest == nil {
		t.Errorf("%+v", f)
	}
	r.problem(r.request("GET", "/v1/forecast?template=nobody", nil), 404)
	for query, field := range map[string]string{"horizon=3w": "query.horizon", "timezone=Mars": "query.timezone"} {
		p := r.problem(r.request("GET", "/v1/forecast?"+query, nil), 422)
		if len(p.Errors) != 1 || p.Errors[0].Location != field {
			t.Errorf("%s: %+v", query, p)
		}
	}
}
