package trace

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestImportCSV(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		cols Columns
	}{
		"names, unsorted": {"id,t,d,k\n7,200,30,b\n8,100.5,1.25,a\n", Columns{Arrival: "t", Duration: "d", Class: "k", Header: true}},
		"numbers":         {"200;30;b\n100.5;1.25;a\n", Columns{Arrival: "1", Duration: "2", Class: "3", Comma: ';'}},
		"milliseconds":    {"t,e,k\n200000,230000,b\n100500,101750,a\n", Columns{Arrival: "t", End: "e", Class: "k", Layout: "unixms", Header: true}},
		"start and end":   {"t,s,e,k\n200,300,330,b\n100.5,100.75,102,a\n", Columns{Arrival: "t", Start: "s", End: "e", Class: "k", Header: true}},
		"layout in a zone": {"t,d,k\n1970-01-01 01:03:20,30,b\n1970-01-01 01:01:40.5,1.25,a\n",
			Columns{Arrival: "t", Duration: "d", Class: "k", Layout: "2006-01-02 15:04:05", Zone: zone, Header: true}},
	} {
		got, err := ImportCSV(strings.NewReader(c.text), "x.csv", c.cols)
		want := "[{{100500 1250 0} a} {{200000 30000 0} b}]"
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: %v, %v; want %s", name, got, err, want)
		}
	}
}

func TestImportCSVRefuses(t *testing.T) {
	cols := Columns{Arrival: "t", Duration: "d", Header: true}
	for text, want := range map[string]string{
		"":                    "x.csv: holds no row",
		"t,d\n":               "x.csv: holds no row",
		"t,x\n1,2\n":          `x.csv:1: has no column "d"; it has t, x`,
		"t,d\n1,2\n1,x\n":     `x.csv:3: duration "x" is no number`,
		"t,d\n1,-2\n":         "x.csv:2: the duration of -2 s is negative",
		"t,d\nsoon,2\n":       `x.csv:2: arrival "soon" is no Unix time`,
		"t,d\n1,2\n3\n":       "x.csv:3: wrong number of fields",
		"t,d\n\"1,2\n":        "x.csv:",
		"t,d\n1,1e99\n":       "is no number of seconds",
		"\x1f\x8bnot a gzip!": "begins like gzip",
	} {
		if got, err := ImportCSV(strings.NewReader(text), "x.csv", cols); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, got, err, want)
		}
	}
}

// prometheus is a server that answers every query with a text.
func prometheus(t *testing.T, answers map[string]string) *Prometheus {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/query_range" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprint(w, answers[r.URL.Query().Get("query")])
	}))
	t.Cleanup(s.Close)
	return &Prometheus{URL: s.URL, Client: s.Client(), Token: "secret", From: time.Unix(60, 0), To: time.Unix(300, 0), Step: time.Minute}
}

func matrix(values string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[` + values + `]}]}}`
}

func TestPrometheusArrivals(t *testing.T) {
	p := prometheus(t, map[string]string{
		"n": matrix(`[60,"2"],[120,"0.5"],[180,"0.5"],[240,"NaN"]`), "d": matrix(`[60,"30"],[120,"NaN"],[180,"90.5"]`),
	})
	p.Arrivals, p.Durations = "n", "d"
	got, err := p.Records(context.Background())
	if want := "[{{15000 30000 0} } {{45000 30000 0} } {{150000 90500 0} }]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
}

func TestPrometheusRunning(t *testing.T) {
	p := prometheus(t, map[string]string{"r": matrix(`[60,"1"],[120,"2"],[180,"1"],[240,"0"]`)})
	p.Running = "r"
	got, err := p.Records(context.Background())
	if want := "[{{60000 120000 0} } {{120000 120000 0} }]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
}

func TestPrometheusRefuses(t *testing.T) {
	for answer, want := range map[string]string{
		`<html>`: "no answer of a Prometheus",
		`{"status":"error","error":"parse error at char 3"}`:                                         "parse error at char 3",
		`{"status":"success","data":{"resultType":"vector","result":[]}}`:                            `a "vector"`,
		`{"status":"success","data":{"resultType":"matrix","result":[]}}`:                            "no sample between",
		`{"status":"success","data":{"resultType":"matrix","result":[{"values":[]},{"values":[]}]}}`: "2 series; want one",
		`{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"x"]]}]}}`:        "cannot be read",
		`{"status":"success","data":{"resultType":"matrix","result":[{"values":[["1","2"]]}]}}`:      "cannot be read",
		matrix(`[60,"-3"]`): "are negative",
	} {
		p := prometheus(t, map[string]string{"q": answer})
		p.Arrivals, p.Duration = "q", time.Minute
		if got, err := p.Records(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v; want %q", answer, got, err, want)
		}
	}
	ok := Prometheus{URL: "http://x", From: time.Unix(0, 0), To: time.Unix(60, 0), Step: time.Second, Running: "q"}
	for want, change := range map[string]func(p *Prometheus){
		"no address":       func(p *Prometheus) { p.URL = "ftp://x" },
		"want a query":     func(p *Prometheus) { p.Arrivals = "q" },
		"length of a task": func(p *Prometheus) { p.Arrivals, p.Running = "q", "" },
		"too short":        func(p *Prometheus) { p.Step = 0 },
		"ends before":      func(p *Prometheus) { p.To = p.From },
		"too many steps":   func(p *Prometheus) { p.To = time.Unix(1e9, 0) },
	} {
		p := ok
		change(&p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	p := prometheus(t, nil)
	p.Token, p.Running = "", "r"
	if _, err := p.Records(context.Background()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("without a token: %v", err)
	}
}
