package sqs

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

func TestConfig(t *testing.T) {
	key := connect.Fixed("x")
	for name, tt := range map[string]struct {
		c     Config
		field string
	}{
		"no queue":           {Config{}, "queue"},
		"a queue that isn't": {Config{Queue: "a b"}, "queue"},
		"a URL of no queue":  {Config{Queue: "https://sqs.eu-central-1.amazonaws.com/"}, "queue"},
		"a password":         {Config{Queue: "https://u:hunter2@h/1/q"}, "queue"},
		"dead":               {Config{Queue: "q", DeadLetter: "?"}, "deadLetterQueue"},
		"account":            {Config{Queue: "q", Account: "12"}, "account"},
		"account of a URL":   {Config{Queue: "https://h/123456789012/q", Account: "123456789012"}, "account"},
		"region":             {Config{Queue: "q", Region: "Frankfurt"}, "region"},
		"no region":          {Config{Queue: "q"}, "region"},
		"half a key":         {Config{Queue: "q", AccessKeyID: key}, "secretAccessKey"},
		"a lone token":       {Config{Queue: "q", SessionToken: key}, "sessionToken"},
		"role":               {Config{Queue: "q", AssumeRole: "muster"}, "assumeRole"},
		"external ID":        {Config{Queue: "q", ExternalID: "x"}, "externalId"},
		"endpoint":           {Config{Queue: "q", Endpoint: "localhost:1"}, "endpoint"},
		"endpoint with user": {Config{Queue: "q", Endpoint: "http://u:hunter2@h"}, "endpoint"},
	} {
		_, err := New(t.Context(), tt.c)
		var f *fleet.FieldError
		if !errors.As(err, &f) || f.Field != tt.field {
			t.Errorf("%s: %v, want an error of %s", name, err, tt.field)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v shows a password", name, err)
		}
	}
	if _, err := New(t.Context(), Config{Queue: "q", Region: "eu-central-1", TLS: connect.TLS{Enabled: true, CAFile: "/does/not/exist"}}); !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("no authority: %v", err)
	}
}

func TestParseQueue(t *testing.T) {
	for s, want := range map[string]where{
		"agents":      {name: "agents"},
		"agents.fifo": {name: "agents.fifo"},
		"https://sqs.eu-central-1.amazonaws.com/123456789012/q":           {name: "q", region: "eu-central-1"},
		"https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/q":     {name: "q", region: "us-gov-west-1"},
		"https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q":          {name: "q", region: "cn-north-1"},
		"https://sqs.us-east-1.api.aws/123456789012/q":                    {name: "q", region: "us-east-1"},
		"https://vpce-0a1-b2.sqs.us-east-2.vpce.amazonaws.com/1/q.fifo":   {name: "q.fifo", region: "us-east-2"},
		"http://localhost:9324/000000000000/q":                            {name: "q"},
		"https://sqs.eu-central-1.amazonaws.com.example.com/1/q":          {name: "q"},
		"https://queue.amazonaws.com/123456789012/with-dash_and_line-123": {name: "with-dash_and_line-123"},
	} {
		got, err := parseQueue(s)
		if strings.Contains(s, "://") {
			want.url = s
		}
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", s, got, err, want)
		}
	}
}

func TestRoom(t *testing.T) {
	now := time.Now()
	for received, want := range map[time.Duration]time.Duration{0: longest - capMargin, time.Hour: 11*time.Hour - capMargin, longest: 0, 2 * longest: 0} {
		if got := (&lease{received: now.Add(-received)}).room(now); got != want {
			t.Errorf("received %s ago: room for %s, want %s", received, got, want)
		}
	}
}

func TestSampled(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	for _, tt := range []struct {
		minute time.Time
		age    float64
		want   time.Time
	}{
		{now.Add(-150 * time.Second), 600, now.Add(-90*time.Second - 10*time.Minute)},
		{now.Add(-30 * time.Second), 0.5, now.Add(-500 * time.Millisecond)},
	} {
		if got := sampled(tt.minute, tt.age, now); !got.Equal(tt.want) {
			t.Errorf("an age of %g s at %s: %s, want %s", tt.age, tt.minute, got, tt.want)
		}
	}
}

func TestReason(t *testing.T) {
	for in, want := range map[string]string{"": "", "a\nb": "a\nb", "a\x00b": "a�b", "\xff": "�"} {
		if got := reason(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := reason(strings.Repeat("ż", reasonMost)); len(got) > reasonMost || !utf8.ValidString(got) {
		t.Errorf("a long reason has %d bytes", len(got))
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"agents", "https://sqs.eu-central-1.amazonaws.com/123456789012/q", "http://u:p@h/q?x#y", "://", "lx3.AQEB", ".", "-1.x",
		`{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:123456789012:dead","maxReceiveCount":3}`, `{"deadLetterTargetArn":7}`, "{}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if w, err := parseQueue(s); err == nil && (!queueName.MatchString(w.name) || strings.Contains(w.url, "@") && !strings.Contains(s, "@")) {
			t.Errorf("%q: %+v", s, w)
		}
		if w, err := parseRedrive(s); err == nil && w != (where{}) && (!queueName.MatchString(w.name) || !accountID.MatchString(w.account)) {
			t.Errorf("%q: %+v", s, w)
		}
		if at, handle, err := parseReceipt(s); err == nil {
			again, same, err := parseReceipt(makeReceipt(at, handle))
			if err != nil || same != handle || !again.Equal(at) {
				t.Errorf("%q: %s and %q, then %s and %q, %v", s, at, handle, again, same, err)
			}
		} else if !errors.Is(err, fleet.ErrFenced) {
			t.Errorf("%q: %v", s, err)
		}
		if r := reason(s); len(r) > reasonMost || !utf8.ValidString(r) {
			t.Errorf("%q: the reason %q", s, r)
		}
		_ = clip(s)
	})
}
