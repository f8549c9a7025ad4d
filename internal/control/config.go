package control

import (
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"muster.dev/muster/internal/calendar"
	"muster.dev/muster/internal/dispatch"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/plan"
)

// Spec is the fleet as it should be; it can be replaced while the engine runs.
type Spec struct {
	Name      string
	Templates []fleet.Template // the first is the default
	Policy    plan.Policy
	Floors    []Floor
	// Consumers bounds the consumers, with Config.Consumers.
	Consumers plan.ConsumerPolicy
	// Retention is how long finished tasks are kept; 0: for ever.
	Retention time.Duration
}

// Floor is a minimum of warm sandboxes at certain times.
type Floor struct {
	Template string // empty: the first
	Rule     calendar.Rule
	For      time.Duration
	Min      int
}

// Config is what an Engine works with; every field is needed unless said.
type Config struct {
	Store     fleet.Store
	Queue     fleet.Queue
	Archive   fleet.Archive // not needed with Follow
	Sandboxes fleet.Sandboxes
	Nodes     fleet.Nodes
	Secrets   fleet.Secrets // nil: no task may name one
	Spec      Spec
	// Variant makes the template of a task whose resources, image or network
	// differ from its template's; nil: the template itself.
	Variant func(fleet.Template, fleet.TaskSpec) fleet.Template

	// Follow says that others take the tasks from the queue: none is leased here,
	// sandboxes and nodes are only counted, and what others hold runs in them.
	Follow bool
	// Consumers says that consumers run the tasks (package consumer): sandboxes
	// are ordered by their records, and Sandboxes is only read and swept.
	Consumers bool
	// Workers is how many workers of others there are, where that is known; nil:
	// never.
	Workers func() (int, bool)

	// Purse says what has been spent of the budgets; nil: nothing is charged, and
	// no budget binds.
	Purse fleet.Purse

	Logger   *slog.Logger      // default: discard
	Clock    func() time.Time  // default: time.Now
	Observe  dispatch.Observer // hears of starts and ends too; may be nil
	Meter    fleet.Meter       // default: nothing is measured
	Consumer string            // name of this process; default "muster"
	Traced   bool              // see dispatch.Config
	// Visibility, Grace: see dispatch.Config.
	Visibility time.Duration
	Grace      time.Duration
	// ParallelStarts bounds sandboxes that are being created at once; default
	// eight for every core.
	ParallelStarts int
	// Tick is the longest time between decisions; default 1 s. Gap is the
	// shortest; default 10 ms.
	Tick, Gap time.Duration

	// fault, when set, is called between journal and apply; tests crash there.
	fault func() error
}

func (c *Config) complete() error {
	if c.Store == nil || c.Queue == nil || c.Archive == nil && !c.Follow || c.Sandboxes == nil || c.Nodes == nil {
		return errors.New("control: store, queue, archive, sandboxes and nodes are needed")
	}
	if c.Follow && c.Consumers {
		return errors.New("control: a fleet whose tasks others take has no consumers")
	}
	if c.Variant == nil {
		c.Variant = func(t fleet.Template, _ fleet.TaskSpec) fleet.Template { return t }
	}
	if c.Meter == nil {
		c.Meter = fleet.NoMeter{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Consumer == "" {
		c.Consumer = "muster"
	}
	if c.ParallelStarts <= 0 {
		c.ParallelStarts = 8 * runtime.GOMAXPROCS(0)
	}
	if c.Tick <= 0 {
		c.Tick = time.Second
	}
	if c.Gap <= 0 {
		c.Gap = 10 * time.Millisecond
	}
	return nil
}

// normal completes a spec: the policy's templates follow from the templates.
func (s Spec) normal() Spec {
	s.Templates = slices.Clone(s.Templates)
	given := s.Policy.Templates
	s.Policy.Templates = make(map[string]plan.TemplatePolicy, len(s.Templates))
	for i, t := range s.Templates {
		if i == 0 {
			s.Policy.First = t.Name
		}
		tp := given[t.Name]
		tp.Min, tp.MaxAge = t.Min, t.MaxAge
		s.Policy.Templates[t.Name] = tp
	}
	s.Policy = s.Policy.WithDefaults()
	return s
}

// template finds a template by name.
func (s *Spec) template(name string) (fleet.Template, bool) {
	for _, t := range s.Templates {
		if t.Name == name {
			return t, true
		}
	}
	return fleet.Template{}, false
}

// templateOf is the name of a pool's template: what stands before "~".
func templateOf(key fleet.PoolKey) (name string, variant bool) {
	name, _, variant = strings.Cut(string(key), "~")
	return name, variant
}
