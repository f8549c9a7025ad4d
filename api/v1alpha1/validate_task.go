package v1alpha1

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Validate checks a task by itself; what depends on the fleet is checked by
// ResolveTask. Fields are named from prefix on, such as "spec".
func (s *TaskSpec) Validate(prefix string) error {
	var ps problems
	s.validate(&ps, prefix)
	return ps.err()
}

// Validate checks a task as a document.
func (t *Task) Validate() error {
	var ps problems
	t.validate(&ps)
	return ps.err()
}

// validate also merges the metadata into the spec.
func (t *Task) validate(ps *problems) {
	header(ps, t.APIVersion, t.Kind, KindTask)
	if t.Metadata.Name != "" {
		ps.name("metadata.name", t.Metadata.Name)
	}
	ps.labels("metadata.labels", t.Metadata.Labels)
	if m, s := t.Metadata.Name, t.Spec.Name; m != "" && s != "" && m != s {
		ps.addf("spec.name", "one of the two", "%q differs from metadata.name, %q", clip(s), clip(m))
	}
	t.merge(ps)
	t.Spec.validate(ps, "spec")
}

func (t *Task) merge(ps *problems) {
	or(&t.Spec.Name, t.Metadata.Name)
	for _, k := range slices.Sorted(maps.Keys(t.Metadata.Labels)) {
		v := t.Metadata.Labels[k]
		if own, ok := t.Spec.Labels[k]; ok && own != v {
			ps.addf(in("spec.labels", k), "one of the two", "%q differs from the label in metadata, %q", clip(own), clip(v))
			continue
		}
		if t.Spec.Labels == nil {
			t.Spec.Labels = map[string]string{}
		}
		t.Spec.Labels[k] = v
	}
}

// Validate checks a schedule.
func (s *Schedule) Validate() error {
	var ps problems
	s.validate(&ps)
	return ps.err()
}

func (s *Schedule) validate(ps *problems) {
	header(ps, s.APIVersion, s.Kind, KindSchedule)
	ps.name("metadata.name", s.Metadata.Name)
	ps.labels("metadata.labels", s.Metadata.Labels)
	s.Spec.validate(ps, "spec")
}

// Validate checks a schedule's spec; fields are named from prefix on.
func (s *ScheduleSpec) Validate(prefix string) error {
	var ps problems
	s.validate(&ps, prefix)
	return ps.err()
}

func (s *ScheduleSpec) validate(ps *problems, field string) {
	ps.rule(field, s.Cron, s.Timezone)
	task := sub(field, "task")
	s.Task.validate(ps, task)
	// Each firing is a task of its own.
	if s.Task.IdempotencyKey != "" {
		ps.addf(sub(task, "idempotencyKey"), "none: each firing has a key of its own", "cannot be set in a schedule")
	}
	if s.Task.NotBefore != "" {
		ps.addf(sub(task, "notBefore"), "none: the cron expression says when", "cannot be set in a schedule")
	}
}

func (s *TaskSpec) validate(ps *problems, field string) {
	ps.printable(sub(field, "name"), s.Name, 100)
	ps.labels(sub(field, "labels"), s.Labels)
	if s.Template != "" {
		ps.name(sub(field, "template"), s.Template)
	}
	if s.Repo != nil {
		ps.repoURL(sub(field, "repo.url"), s.Repo.URL)
		ps.ref(sub(field, "repo.ref"), s.Repo.Ref)
		ps.whole(sub(field, "repo.depth"), s.Repo.Depth, -1, 1_000_000)
	}
	s.validateCommand(ps, field)
	s.validateSecrets(ps, field)
	ps.image(sub(field, "image"), s.Image)
	if s.Resources != nil {
		s.Resources.validate(ps, sub(field, "resources"))
	}
	if s.Network != nil {
		s.Network.validate(ps, sub(field, "network"), s.Network.Mode)
	}
	if s.Timeouts != nil {
		s.Timeouts.validate(ps, sub(field, "timeouts"))
	}
	if s.Budget != nil {
		ps.real(sub(field, "budget.maxUSD"), s.Budget.MaxUSD, 0, 1e6)
	}
	if s.Retries != nil {
		if m := s.Retries.Max; m != nil && (*m < 0 || *m > 100) {
			ps.addf(sub(field, "retries.max"), "from 0 to 100", "%d is not allowed", *m)
		}
		ps.duration(sub(field, "retries.backoff"), s.Retries.Backoff, time.Millisecond, 5*time.Minute, "none")
	}
	ps.whole(sub(field, "priority"), s.Priority, -1000, 1000)
	if len(s.Artifacts) > 100 {
		ps.addf(sub(field, "artifacts"), "at most 100", "has %d patterns", len(s.Artifacts))
	} else {
		for i, g := range s.Artifacts {
			ps.glob(at(sub(field, "artifacts"), i), g)
		}
	}
	ps.webhook(sub(field, "webhook"), s.Webhook)
	ps.printable(sub(field, "idempotencyKey"), s.IdempotencyKey, 255)
	if _, err := s.notBefore(time.Time{}); err != nil {
		ps.addf(sub(field, "notBefore"), `a time such as 2026-01-31T08:00:00Z, or a delay such as "+10m" of at most a year`, "%s", err)
	}
}

func (s *TaskSpec) validateCommand(ps *problems, field string) {
	command := sub(field, "command")
	switch {
	case len(s.Command) == 0:
		ps.addf(command, `a list such as ["claude", "-p", "…"]`, "is missing")
	case s.Command[0] == "":
		ps.addf(at(command, 0), "a program", "is empty")
	case len(s.Command) == 1 && strings.Contains(s.Command[0], " ") && !strings.Contains(s.Command[0], "/"):
		ps.addf(at(command, 0), `each word an item of its own, or ["sh", "-c", "…"]`, "%q is a whole command line", clip(s.Command[0]))
	default:
		ps.words(command, s.Command, true)
	}
	ps.words(sub(field, "setup"), s.Setup, false)
	if strings.ContainsRune(s.Prompt, 0) {
		ps.addf(sub(field, "prompt"), "text without NUL bytes", "has a NUL byte")
	}
	ps.env(sub(field, "env"), s.Env)
	texts := []string{s.Prompt}
	if s.Input != nil {
		s.Input.validate(ps, sub(field, "input"), s.Env)
		texts = append(texts, s.Input.Text, s.Input.Base64)
	}
	ps.payload(field, s.Env, s.Command, s.Setup, texts)
}

// secretName is what the name of a secret should be.
const secretName = "the name of a secret: letters, digits and \"_\", not beginning with a digit"

func isSecretName(n string) bool { return envSyntax.MatchString(n) && len(n) <= 128 }

func (s *TaskSpec) validateSecrets(ps *problems, field string) {
	field = sub(field, "secrets")
	if len(s.Secrets) > 100 {
		ps.addf(field, "at most 100", "has %d names", len(s.Secrets))
		return
	}
	seen := map[string]bool{}
	for i, n := range s.Secrets {
		switch {
		case !isSecretName(n):
			ps.addf(at(field, i), secretName, "%q cannot be one", clip(n))
		case strings.HasPrefix(n, "MUSTER_"):
			ps.addf(at(field, i), "another name", "names beginning with MUSTER_ are set by muster")
		case seen[n]:
			ps.addf(at(field, i), "each once", "%q is listed twice", n)
		default:
			if _, both := s.Env[n]; both {
				ps.addf(at(field, i), "one of the two", "%q is also in env", n)
			}
		}
		seen[n] = true
	}
}
