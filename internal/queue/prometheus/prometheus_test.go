package prometheus

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

func vector(at time.Time, value string) string {
	return fmt.Sprintf(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, at.Unix(), value)
}

// TestNeverZero: whatever is wrong with an answer is an error.
func TestNeverZero(t *testing.T) {
	var status int
	var body string
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	s, err := New(t.Context(), Config{
		URL: server.URL + "/prometheus?tenant=a", Backlog: "n", Token: connect.Fixed("s3cret"), StaleAfter: 90 * time.Second,
		Headers: map[string]string{"X-Scope-OrgID": "agents"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	for _, tt := range []struct {
		status int
		body   string
		kind   error
		want   string
	}{
		{200, vector(now, "3"), nil, ""},
		{200, `{"status":"success","data":{"resultType":"scalar","result":[` + fmt.Sprint(now.Unix()) + `,"3"]}}`, nil, ""},
		{200, vector(now.Add(-2*time.Minute), "3"), fleet.ErrUnavailable, "older than 1m30s"},
		{200, vector(now, "NaN"), fleet.ErrUnavailable, "no finite number"},
		{200, vector(now, "+Inf"), fleet.ErrUnavailable, "no finite number"},
		{200, vector(now, "-1"), fleet.ErrUnavailable, "negative"},
		{200, ``, fleet.ErrUnavailable, "none of Prometheus"},
		{200, `{}`, fleet.ErrUnavailable, "none of Prometheus"},
		{200, `<html>s3cret`, fleet.ErrUnavailable, "none of Prometheus"},
		{200, `{"status":"success"}`, fleet.ErrUnavailable, "one number is wanted"},
		{200, `{"status":"success","data":{"resultType":"vector","result":[]}}`, fleet.ErrUnavailable, "not taken for zero"},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{}]}}`, fleet.ErrUnavailable, "histogram"},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{"value":[1]}]}}`, fleet.ErrUnavailable, "no sample"},
		{200, `{"status":"success","data":{"resultType":"vector","result":[{},{}]}}`, fleet.ErrUnavailable, "2 series"},
		{200, strings.Replace(vector(now, "3"), `"status"`, `"warnings":["no store"],"status"`, 1), fleet.ErrUnavailable, "no store"},
		{200, strings.Replace(vector(now, "3"), `"status"`, `"isPartial":true,"status"`, 1), fleet.ErrUnavailable, "in part"},
		{400, `{"status":"error","errorType":"bad_data","error":"parse error near s3cret"}`, fleet.ErrInvalid, "parse error near ***"},
		{503, `{"status":"error","errorType":"timeout","error":"timed out"}`, fleet.ErrUnavailable, "HTTP 503"},
		{401, `s3cret`, fleet.ErrDenied, "HTTP 401"},
		{404, `not here`, fleet.ErrNotFound, "HTTP 404"},
		{400, `{"status":"error","error":"no org id"}`, fleet.ErrInvalid, "no org id"},
	} {
		status, body = tt.status, tt.body
		st, err := s.Stats(t.Context())
		if !errors.Is(err, tt.kind) || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%d %s: %v, want %v %q", tt.status, tt.body, err, tt.kind, tt.want)
		}
		if err == nil && st.Backlog != 3 {
			t.Errorf("read %+v", st)
		}
	}
	if q := got.URL.Query(); got.URL.Path != "/prometheus/api/v1/query" || q.Get("tenant") != "a" || q.Get("query") != "n" || q.Get("lookback_delta") != "90" || got.Header.Get("X-Scope-OrgID") != "agents" {
		t.Errorf("asked %s", got.URL)
	}
}

func TestOldestOfNothing(t *testing.T) {
	backlog := "0"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "age" {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
			return
		}
		fmt.Fprint(w, vector(time.Now(), backlog))
	}))
	defer server.Close()
	s, err := New(t.Context(), Config{URL: server.URL, Backlog: "n", Oldest: "age"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if st, err := s.Stats(t.Context()); err != nil || !st.Oldest.IsZero() {
		t.Errorf("nothing waits: %+v, %v", st, err)
	}
	backlog = "1"
	if st, err := s.Stats(t.Context()); !errors.Is(err, fleet.ErrUnavailable) {
		t.Errorf("one waits: %+v, %v", st, err)
	}
}

func TestConfig(t *testing.T) {
	none := connect.Fixed("x")
	for want, c := range map[string]Config{
		"url":        {Backlog: "n"},
		"url: has":   {URL: "http://u:hunter2@h", Backlog: "n"},
		"tls":        {URL: "http://h", Backlog: "n", TLS: connect.TLS{Enabled: true}},
		"backlog":    {URL: "http://h"},
		"staleAfter": {URL: "http://h", Backlog: "n", StaleAfter: 2 * time.Hour},
		"timeout":    {URL: "http://h", Backlog: "n", Timeout: time.Minute},
		"username":   {URL: "http://h", Backlog: "n", Password: none},
		"token":      {URL: "http://h", Backlog: "n", Token: none, Username: "u"},
	} {
		_, err := New(t.Context(), c)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(vector(time.Unix(1_800_000_000, 0), "3")))
	f.Add([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1e400,"3"]}}`))
	f.Add([]byte(`{"status":"error","error":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		x, _, err := parse(body)
		if err == nil && !x.absent && x.at.Unix() < 0 {
			t.Errorf("%+v", x)
		}
	})
}
