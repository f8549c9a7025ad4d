package connect

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// TestHTTPRedirects: credentials stay with the host that they are for.
func TestHTTPRedirects(t *testing.T) {
	var elsewhere int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, other.URL+"/?"+r.URL.RawQuery, http.StatusFound)
		case "/near":
			http.Redirect(w, r, "/here", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/here":
			fmt.Fprint(w, r.Header.Get("X-Key"))
		}
	}))
	defer s.Close()
	c := NewHTTP(HTTP{Key: Fixed("s3cret"), KeyHeader: "X-Key"})
	defer c.Close()
	if a, err := c.Do(t.Context(), "GET", s.URL+"/near", "", nil); err != nil || string(a.Body) != "s3cret" {
		t.Errorf("to the same host: %q, %v", a.Body, err)
	}
	for _, path := range []string{"/away?token=s3cret", "/loop"} {
		_, err := c.Do(t.Context(), "GET", s.URL+path, "", nil)
		if !errors.Is(err, fleet.ErrUnavailable) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", path, err)
		}
	}
	if elsewhere != 0 {
		t.Error("the other host was asked")
	}
}

func TestHTTPBounds(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/large":
			_, _ = w.Write(make([]byte, 101))
		case "/drip":
			fmt.Fprint(w, "{")
			w.(http.Flusher).Flush()
			<-release
		}
	}))
	defer s.Close()
	defer close(release)
	c := NewHTTP(HTTP{Most: 100, Timeout: 200 * time.Millisecond})
	defer c.Close()
	for path, want := range map[string]string{"/large": "larger than 100 bytes", "/drip": "no answer within 200ms"} {
		_, err := c.Do(t.Context(), "GET", s.URL+path, "", nil)
		if !errors.Is(err, fleet.ErrUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := c.Do(t.Context(), "GET", s.URL+"/\x00?p=s3cret", "", nil); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("no address: %v", err)
	}
	k := NewHTTP(HTTP{Bearer: Fixed("two\nlines")})
	defer k.Close()
	if _, err := k.Do(t.Context(), "GET", s.URL, "", nil); !errors.Is(err, fleet.ErrInvalid) || strings.Contains(err.Error(), "lines\n") {
		t.Errorf("a credential that is no header: %v", err)
	}
	gone := NewHTTP(HTTP{Bearer: Env("MUSTER_TEST_NONE")})
	defer gone.Close()
	if _, err := gone.Do(t.Context(), "GET", s.URL, "", nil); !errors.Is(err, fleet.ErrNotFound) || !strings.Contains(err.Error(), "MUSTER_TEST_NONE") {
		t.Errorf("a credential that is not there: %v", err)
	}
}

func TestRedact(t *testing.T) {
	c := NewHTTP(HTTP{Bearer: Fixed("s3cret")})
	defer c.Close()
	if _, err := c.secret.Value(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.Redact("no\n s3cret \xff" + strings.Repeat("x", 300)); !strings.HasPrefix(got, "no *** ?xx") || len(got) > 210 {
		t.Errorf("got %q", got)
	}
}

func TestNumbers(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, " 12 ": 12, "0.1": 1, "1e3": 1000, "9007199254740992": 1 << 53} {
		if got, err := Count(text); got != want || err != nil {
			t.Errorf("count %q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "NaN", "+Inf", "-1", "1e300", "twelve", "1e16", "1,5"} {
		if got, err := Count(text); err == nil {
			t.Errorf("count %q: %d", text, got)
		}
	}
	if got, err := Age("1.5"); got != 1500*time.Millisecond || err != nil {
		t.Errorf("age: %s, %v", got, err)
	}
	if _, err := Age("1e12"); err == nil {
		t.Error("an age of 30,000 years")
	}
	want := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	for _, text := range []string{"2026-03-02T10:00:00+01:00", "1772442000", "1772442000000", "1772442000.0"} {
		if got, err := Time(text); !got.Equal(want) || err != nil {
			t.Errorf("time %q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "yesterday", "-1", "1e15", "0001-01-01T00:00:00Z"} {
		if got, err := Time(text); err == nil {
			t.Errorf("time %q: %s", text, got)
		}
	}
}

func FuzzNumbers(f *testing.F) {
	f.Add("12")
	f.Add("2026-03-02T10:00:00Z")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := Count(text); err == nil && n < 0 {
			t.Errorf("%q is %d", text, n)
		}
		if d, err := Age(text); err == nil && d < 0 {
			t.Errorf("%q is %s", text, d)
		}
		if at, err := Time(text); err == nil && at.Unix() < 0 {
			t.Errorf("%q is %s", text, at)
		}
	})
}
