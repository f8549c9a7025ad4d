package redis

import (
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

func TestBadConfig(t *testing.T) {
	list := &List{Name: "q"}
	for want, c := range map[string]Config{
		"addresses: is missing":       {List: list},
		"addresses: one of them":      {Addresses: []string{"redis://:" + password + "@h:1"}, List: list},
		"addresses: names 2 servers":  {Addresses: []string{"a:1", "b:1"}, List: list},
		"list: both or neither":       {Addresses: []string{"a:1"}},
		"list.name: is missing":       {Addresses: []string{"a:1"}, List: &List{}},
		"stream.name: is missing":     {Addresses: []string{"a:1"}, Stream: &Stream{}},
		"list.name: no other key":     {Addresses: []string{"a:1"}, List: &List{Name: "a}b"}},
		"list.push":                   {Addresses: []string{"a:1"}, List: &List{Name: "q", Push: "up"}},
		"stream.adopt":                {Addresses: []string{"a:1"}, Stream: &Stream{Name: "q", Adopt: time.Second}},
		"dead: is the queue itself":   {Addresses: []string{"a:1"}, List: list, Dead: "q"},
		"db: -1":                      {Addresses: []string{"a:1"}, List: list, DB: -1},
		"db: is 1":                    {Addresses: []string{"a:1"}, List: list, DB: 1, Cluster: true},
		"sentinel: has no meaning":    {Addresses: []string{"a:1"}, List: list, Sentinel: &Sentinel{Master: "m"}, Cluster: true},
		"sentinel.master: is missing": {Addresses: []string{"a:1"}, List: list, Sentinel: &Sentinel{}},
		"TLS authority: invalid":      {Addresses: []string{"a:1"}, List: list, TLS: connect.TLS{Enabled: true, CAFile: "/does/not/exist"}},
	} {
		_, err := New(t.Context(), c)
		fails(t, want, err, fleet.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// The caller's configuration is not changed.
func TestConfigIsCopied(t *testing.T) {
	l := &List{Name: "q"}
	s := open(t, Config{Addresses: []string{"127.0.0.1:1"}, List: l})
	defer s.Close()
	if l.Push != "" {
		t.Error("the default was written into the caller's list")
	}
}

func FuzzKeys(f *testing.F) {
	for _, s := range []string{"agents", "{a}b", "a{b}c", "a{b", "{}x", "a}b", "{{a}}", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		c := Config{Addresses: []string{"a:1"}, Cluster: true, List: &List{Name: name}}
		if c.check() != nil {
			return
		}
		seen := map[string]bool{}
		for _, k := range c.keys() {
			if hashTag(k) != hashTag(name) {
				t.Errorf("%q is in another slot than %q", k, name)
			}
			if seen[k] {
				t.Errorf("%q is there twice", k)
			}
			seen[k] = true
		}
	})
}

func FuzzReceipt(f *testing.F) {
	f.Add("1-0 TOKEN-1")
	f.Add(" ")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReceipt(s)
		if err == nil && r.String() != s {
			t.Errorf("%q was read as %q", s, r)
		}
	})
}

func FuzzFields(f *testing.F) {
	f.Add("body\x00x\x00team\x00a")
	f.Fuzz(func(t *testing.T, flat string) {
		var reply []any
		for _, s := range strings.Split(flat, "\x00") {
			reply = append(reply, s)
		}
		s := &Source{cfg: Config{Stream: &Stream{Body: "body"}}}
		m, _, err := s.messages([]any{[]any{"1-0", "t", int64(1), int64(-1), reply}}, time.Now(), time.Second)
		if (err == nil) != (len(reply)%2 == 0) {
			t.Errorf("%d parts: %v, %v", len(reply), m, err)
		}
	})
}

func TestOddReplies(t *testing.T) {
	s := &Source{cfg: Config{List: &List{}}}
	for _, reply := range []any{nil, "x", []any{int64(1)}, []any{[]any{"id", "t", int64(1), int64(1), nil}}, []any{[]any{"id", int64(1), "t", int64(1), "x"}}} {
		if _, _, err := s.messages(reply, time.Now(), time.Second); err == nil {
			t.Errorf("%v was taken for messages", reply)
		}
		if _, err := numbers(reply, 2); err == nil {
			t.Errorf("%v was taken for numbers", reply)
		}
	}
}
