package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
)

func newTopCommand(s *shell) *cobra.Command {
	var (
		once  bool
		every time.Duration
		how   topHow
		out   *outputFlag
	)
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch the fleet live: queue, consumers, sandboxes, nodes",
		Long: `Watch the fleet: how long scaling out took beside what is promised, what waits, what
takes it, the sandboxes with what each uses now, the nodes with their slots, what
binds, and what happened last.

Keys: q or Ctrl-C ends it, s changes the order of sandboxes, / filters them (Enter
keeps the filter, Esc clears it). Where standard output is no terminal, or with
--once, it is printed once, as a whole.`,
		Example: `  muster top
  muster top --sort memory --filter running
  muster top --once | head -20`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 200*time.Millisecond || every > time.Hour {
				return usageError("--every %s is not allowed; want 200ms to 1h", every)
			}
			if !slices.Contains(topSorts, how.sort) {
				return usageError("--sort %q is unknown; want one of %s", how.sort, strings.Join(topSorts, ", "))
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			l := &topLooker{client: cl}
			v, err := l.look(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := out.structured(s, v); done {
				return err
			}
			how.colour = s.colour(s.out)
			if _, tty := s.terminal(s.out); !tty || once {
				how.width, how.now = s.width(), s.now()
				s.printf("%s\n", drawTop(v, how))
				return nil
			}
			return runTop(cmd.Context(), s, &topModel{topHow: how, look: l.look, every: every, seen: v, clock: s.now})
		},
	}
	f := c.Flags()
	f.BoolVar(&once, "once", false, "print it once, as a whole")
	f.DurationVar(&every, "every", time.Second, "how often it looks, 200ms to 1h (`duration`)")
	f.StringVar(&how.sort, "sort", topSorts[0], "order of sandboxes: "+strings.Join(topSorts, ", "))
	f.StringVar(&how.filter, "filter", "", "only sandboxes with this `text` in their id, pool, state, node or task")
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

// topLooker looks at a fleet again and again.
type topLooker struct {
	client *client.Client
	last   int64 // newest event seen
	events []fleet.Event
}

// topEvents is how many of the newest events are kept.
const topEvents = 20

func (l *topLooker) look(ctx context.Context) (*topSeen, error) {
	f, err := l.client.Fleet(ctx)
	if err != nil {
		return nil, err
	}
	boxes, err := l.client.Sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	q := client.EventQuery{After: l.last, Limit: 1000}
	if l.last == 0 {
		q.Since = f.At.Add(-10 * time.Minute)
	}
	ev, err := l.client.Events(ctx, q)
	if err != nil {
		return nil, err
	}
	if n := len(ev.Events); n > 0 {
		l.last = ev.Events[n-1].Seq
		l.events = append(l.events, ev.Events...)
		l.events = slices.Clone(l.events[max(0, len(l.events)-topEvents):])
	}
	return &topSeen{Fleet: f, Sandboxes: boxes.Sandboxes, Events: slices.Clone(l.events)}, nil
}

// topModel is the state of a live picture.
type topModel struct {
	topHow
	look  func(context.Context) (*topSeen, error)
	every time.Duration
	seen  *topSeen
	clock func() time.Time
	ctx   context.Context //nolint:containedctx // bubbletea calls without one
}

// looked is what a look has brought.
type looked struct {
	seen *topSeen
	err  error
}

type lookAgain struct{}

// runTop shows the picture until the user ends it.
func runTop(ctx context.Context, s *shell, m *topModel) error {
	m.ctx = ctx
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(s.in), tea.WithOutput(s.out)).Run()
	if err != nil && ctx.Err() == nil && !errors.Is(err, tea.ErrInterrupted) {
		return fmt.Errorf("show the fleet: %w", err)
	}
	return nil
}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.wait() }

func (m *topModel) wait() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return lookAgain{} })
}

// Update implements tea.Model.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch x := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = x.Width, x.Height
	case lookAgain:
		return m, func() tea.Msg {
			v, err := m.look(m.ctx)
			return looked{v, err}
		}
	case looked:
		m.problem = ""
		if x.err != nil {
			m.problem = x.err.Error()
		} else {
			m.seen = x.seen
		}
		return m, m.wait()
	case tea.KeyPressMsg:
		return m, m.key(x)
	}
	return m, nil
}

func (m *topModel) key(k tea.KeyPressMsg) tea.Cmd {
	if k.String() == "ctrl+c" {
		return tea.Quit
	}
	if m.typing {
		m.typed(k)
		return nil
	}
	switch k.String() {
	case "q":
		return tea.Quit
	case "s":
		m.sort = topSorts[(slices.Index(topSorts, m.sort)+1)%len(topSorts)]
	case "/":
		m.typing = true
	case "esc":
		m.filter = ""
	}
	return nil
}

// typed takes a key while the filter is typed.
func (m *topModel) typed(k tea.KeyPressMsg) {
	const longest = 64
	switch k.Code {
	case tea.KeyEnter:
		m.typing = false
	case tea.KeyEsc:
		m.typing, m.filter = false, ""
	case tea.KeyBackspace:
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		for _, r := range k.Text {
			if unicode.IsPrint(r) && len(m.filter) < longest {
				m.filter += string(r)
			}
		}
	}
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	v := tea.NewView(m.draw())
	v.AltScreen = true
	return v
}

func (m *topModel) draw() string {
	if m.height == 0 {
		return "" // the size comes first
	}
	m.now = m.clock()
	return drawTop(m.seen, m.topHow)
}
