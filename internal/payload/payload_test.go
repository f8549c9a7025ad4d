package payload

import (
	"errors"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func decoder(t *testing.T, payload string) *Decoder {
	t.Helper()
	f, err := v1alpha1.ParseFleet([]byte(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: f}
spec:
  templates: [{name: default}, {name: big, resources: {memory: 4Gi}}]
  queue: {type: redis, redis: {addresses: ["127.0.0.1:6379"], list: {name: tasks}}, payload: ` + payload + `}
`))
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(f)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTask(t *testing.T) {
	d := decoder(t, "{}")
	for name, body := range map[string]string{
		"spec":     `{"command": ["true"], "labels": {"team": "pay"}, "priority": 5}`,
		"document": "kind: Task\napiVersion: muster.dev/v1alpha1\nspec:\n  command: [\"true\"]\n  labels: {team: pay}\n  priority: 5\n",
	} {
		got, err := d.Decode(fleet.Message{Body: []byte(body)}, now)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s := got.Spec; s.Command[0] != "true" || s.Tenant != "pay" || s.Priority != 5 || s.Pool != "default" || s.Timeouts.Queue != 0 || s.Timeouts.Run == 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	got, err := d.Decode(fleet.Message{Body: []byte(`{"command": ["true"], "timeouts": {"queue": "5m"}}`)}, now)
	if err != nil || got.Spec.Timeouts.Queue != 5*time.Minute {
		t.Errorf("a task's own bound of waiting: %s, %v", got.Spec.Timeouts.Queue, err)
	}
	for body, want := range map[string]string{
		"":                     "is empty",
		"hello":                "payload",
		"{":                    "",
		"[1,2]":                "payload",
		"\xff\x00":             "not text",
		`{"comand": ["true"]}`: "comand",
		`{"command": []}`:      "command",
		`{"kind": "Fleet"}`:    "",
		`{"command": ["true"], "template": "none"}`: `"none" does not exist`,
	} {
		_, err := d.Decode(fleet.Message{Body: []byte(body)}, now)
		if !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ErrInvalid with %q", body, err, want)
		}
	}
}

func TestBytes(t *testing.T) {
	d := decoder(t, `{format: bytes, task: {template: big, command: [agent]}, to: stdin}`)
	if d.Pool() != "big" {
		t.Errorf("pool %s", d.Pool())
	}
	for _, body := range []string{"", "{", "\x00\xff", "text"} {
		got, err := d.Decode(fleet.Message{Body: []byte(body)}, now)
		if err != nil {
			t.Fatal(err)
		}
		if in := got.Spec.Input; in == nil || string(in.Data) != body || in.To != fleet.InputStdin || got.Spec.Pool != "big" {
			t.Errorf("%q became %+v", body, got.Spec)
		}
	}
	_, err := d.Decode(fleet.Message{Body: make([]byte, 2<<20)}, now)
	if !errors.Is(err, fleet.ErrInvalid) {
		t.Errorf("too large a message: %v", err)
	}
	env := decoder(t, `{format: bytes, task: {command: [agent]}, to: env, name: PAYLOAD}`)
	if _, err := env.Decode(fleet.Message{Body: []byte("a\x00b")}, now); !errors.Is(err, fleet.ErrInvalid) || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("a NUL byte for a variable: %v", err)
	}
}

func TestExpr(t *testing.T) {
	d := decoder(t, `{format: expr, expr: '{command: ["agent", json.prompt], labels: {team: headers["team"] ?? "none"}, template: json.size > 3 ? "big" : "default", name: id}'}`)
	got, err := d.Decode(fleet.Message{ID: "m1", Body: []byte(`{"prompt": "fix it", "size": 7}`), Headers: map[string]string{"team": "pay"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Spec; s.Command[1] != "fix it" || s.Tenant != "pay" || s.Pool != "big" || s.Name != "m1" {
		t.Errorf("got %+v", s)
	}
	for _, body := range []string{"no json", `{"prompt": 3, "size": 1}`, `{"size": "x", "prompt": "p"}`} {
		if _, err := d.Decode(fleet.Message{ID: "m2", Body: []byte(body)}, now); !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestBadExpression(t *testing.T) {
	f, err := v1alpha1.ParseFleet([]byte(`
apiVersion: muster.dev/v1alpha1
kind: Fleet
metadata: {name: f}
spec:
  templates: [{name: default}]
  queue: {type: redis, redis: {addresses: ["127.0.0.1:6379"], list: {name: tasks}}, payload: {format: expr, expr: "jsn.prompt +"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var fe *fleet.FieldError
	if _, err := New(f); !errors.As(err, &fe) || fe.Field != "spec.queue.payload.expr" {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"command": ["true"]}`))
	f.Add([]byte("kind: Task\n"))
	fl, err := v1alpha1.ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: f}\nspec: {templates: [{name: default}]}\n"))
	if err != nil {
		f.Fatal(err)
	}
	d, err := New(fl)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := d.Decode(fleet.Message{Body: body}, now)
		if err != nil && !errors.Is(err, fleet.ErrInvalid) {
			t.Errorf("%q: %v does not say that the message is at fault", body, err)
		}
		if err == nil && (len(got.Spec.Command) == 0 || got.Spec.Pool == "") {
			t.Errorf("%q became %+v", body, got.Spec)
		}
	})
}
