package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFleets: several fleets at one address, each below its path, one that is
// alone at the root, too; nothing where another replica leads.
func TestFleets(t *testing.T) {
	standby := "another one leads"
	all, err := NewFleets(FleetsConfig{Token: testToken, Standby: func() string { return standby }})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, token string) (int, string, http.Header) {
		r := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader("{}"))
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		all.ServeHTTP(w, r)
		return w.Code, w.Body.String(), w.Header()
	}
	expect := func(method, path string, code int, text string) {
		t.Helper()
		if got, body, _ := ask(method, path, testToken); got != code || !strings.Contains(body, text) {
			t.Errorf("%s %s: %d %s; want %d with %q", method, path, got, body, code, text)
		}
	}
	for _, path := range []string{"/fleets", "/v1/fleet", "/fleets/a/one/v1/fleet", "/metrics"} {
		if code, _, _ := ask("GET", path, ""); code != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d", path, code)
		}
	}
	if code, _, _ := ask("GET", "/healthz", ""); code != http.StatusOK {
		t.Errorf("health: %d", code)
	}
	code, body, h := ask("GET", "/v1/fleet", testToken)
	if code != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || !strings.Contains(body, standby) {
		t.Errorf("standing by: %d %s %v", code, body, h)
	}
	expect("GET", "/readyz", http.StatusOK, "ok") // standing by is what it is there for
	standby = ""
	expect("GET", "/v1/fleet", http.StatusServiceUnavailable, "there is no fleet yet")

	one, two := newRig(t).server, newRig(t).server
	if path := all.Add("a", "one", one); path != "/fleets/a/one" {
		t.Error(path)
	}
	expect("GET", "/v1/tasks", http.StatusOK, "tasks")
	expect("GET", "/fleets/a/one/v1/tasks", http.StatusOK, "tasks")
	all.Add("b", "two", two)
	expect("GET", "/v1/tasks", http.StatusNotFound, "a/one, b/two")
	expect("GET", "/fleets/b/two/v1/tasks", http.StatusOK, "tasks")
	expect("GET", "/fleets/b/one/v1/tasks", http.StatusNotFound, "there is no fleet one in namespace b")
	expect("GET", "/metrics", http.StatusOK, `fleet="two",namespace="b"`)
	var list struct{ Fleets []fleetEntry }
	if _, body, _ := ask("GET", "/fleets", testToken); json.Unmarshal([]byte(body), &list) != nil || len(list.Fleets) != 2 || list.Fleets[1] != (fleetEntry{"b", "two", "/fleets/b/two"}) {
		t.Errorf("%s", body)
	}

	all.Close("b", "two", two)
	expect("GET", "/fleets/b/two/v1/tasks", http.StatusOK, "tasks")
	expect("POST", "/fleets/b/two/v1/tasks", http.StatusConflict, "the fleet is deleted")
	all.Remove("b", "two", one) // is not two
	expect("GET", "/fleets/b/two/v1/tasks", http.StatusOK, "tasks")
	all.Remove("b", "two", two)
	expect("GET", "/v1/tasks", http.StatusOK, "tasks")
}
