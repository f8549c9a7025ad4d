package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/terminal"
)

func newFleetCommand(s *shell) *cobra.Command {
	var (
		watch, spec bool
		every       time.Duration
		out         *outputFlag
	)
	c := &cobra.Command{
		Use:   "fleet",
		Short: "Show the fleet: what there is, what is wanted, and why",
		Long: `Show the three layers of the fleet (consumers, sandboxes, nodes) with what is
desired, ready, starting and running; the queue's signals; each pool with its
measured lead time and how long its warm sandboxes last at the present rate; and
the constraint that binds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 100*time.Millisecond {
				return usageError("--every %s is too short; want 100ms or more", every)
			}
			cl, err := s.connect()
			if err != nil {
				return err
			}
			defer cl.Close()
			switch {
			case spec:
				return printSpec(cmd.Context(), s, cl, out)
			case watch:
				return watchFleet(cmd.Context(), s, cl, out, every)
			}
			v, err := cl.Fleet(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := out.structured(s, v); done {
				return err
			}
			return printFleet(s, v)
		},
	}
	f := c.Flags()
	f.BoolVarP(&watch, "watch", "w", false, "show it again and again until Ctrl-C; with -o json an object a line")
	f.DurationVar(&every, "every", time.Second, "how often --watch looks (`duration`)")
	f.BoolVar(&spec, "spec", false, "show the specification in force, defaults filled in")
	out = addOutput(c, formatTable, formatJSON, formatYAML)
	c.AddCommand(newHistoryCommand(s), newRollbackCommand(s))
	return c
}

func printSpec(ctx context.Context, s *shell, c *client.Client, out *outputFlag) error {
	raw, err := c.FleetSpec(ctx)
	if err != nil {
		return err
	}
	var v v1alpha1.Fleet
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("read the fleet: %w", err)
	}
	if out.value != formatJSON {
		out = &outputFlag{value: formatYAML}
	}
	_, err = out.structured(s, v)
	return err
}

// watchFleet shows the fleet until it is interrupted, over a restart of the
// server.
func watchFleet(ctx context.Context, s *shell, c *client.Client, out *outputFlag, every time.Duration) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	_, tty := s.terminal(s.out)
	for met := false; ; {
		v, err := c.Fleet(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && (!met || !errors.Is(err, client.ErrLost)):
			return err
		case err != nil:
			s.note("%v", err)
		case out.value == formatJSON:
			met = true
			if err := line(s, v); err != nil {
				return err
			}
		default:
			met = true
			if tty {
				s.printf("\x1b[H\x1b[2J") // home, clear
			}
			if err := printFleet(s, v); err != nil {
				return err
			}
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

func printFleet(s *shell, v v1alpha1.FleetView) error {
	s.printf("%s", s.styled(terminal.Escape(v.Name), "1"))
	if !v.Started.IsZero() {
		s.printf("  up %s", terminal.Age(v.At.Sub(v.Started).Truncate(time.Second)))
	}
	s.printf("\n")
	if v.Sentence != "" {
		s.printf("%s\n", terminal.Escape(v.Sentence))
	}
	if v.SignalsError != "" {
		s.printf("%s\n", s.styled(fmt.Sprintf("the queue could not be read since %s: %s; nothing is scaled in",
			clock(v.SignalsAsOf), terminal.Escape(v.SignalsError)), "31"))
	}
	s.printf("\n")
	if err := s.printTable(layers(s, v)); err != nil {
		return err
	}
	s.printf("\n")
	fields := [][2]string{{"queue", queueText(v)}, {"start", startObjective(v.Start, v.At.Sub(v.Started))}}
	s.fields(append(fields, budgetFields(v.Budgets)...)...)
	s.printf("\n")
	if len(v.Queues) > 1 || len(v.Queues) == 1 && v.Queues[0].Name != "embedded" {
		if err := s.printTable(queues(s, v)); err != nil {
			return err
		}
		s.printf("\n")
	}
	if err := s.printTable(pools(s, v.Pools)); err != nil {
		return err
	}
	for _, p := range v.Pools {
		if p.Breaker.Open {
			s.printf("%s\n", s.styled(breakerText(p, v.At), "31"))
		}
	}
	if len(v.Nodes) > 0 {
		s.printf("\n")
		return s.printTable(nodes(s, v.Nodes))
	}
	return nil
}

// layers is the table of the three layers.
func layers(s *shell, v v1alpha1.FleetView) *terminal.Table {
	t := s.table(terminal.Column{Title: "LAYER"}, terminal.Column{Title: "DESIRED", Right: true}, terminal.Column{Title: "READY", Right: true},
		terminal.Column{Title: "STARTING", Right: true}, terminal.Column{Title: "RUNNING", Right: true}, terminal.Column{Title: "DRAINING", Right: true})
	n := strconv.Itoa
	t.Row(terminal.Text("consumers", n(v.Consumers), n(max(0, v.Consumers-v.ConsumersBusy)), "", n(v.ConsumersBusy), "")...)
	var d, r, st, ru, dr int
	for _, p := range v.Pools {
		d, r, st, ru, dr = d+p.Desired, r+p.Ready, st+p.Starting, ru+p.Running, dr+p.Draining
	}
	t.Row(terminal.Text("sandboxes", n(d), n(r), n(st), n(ru), n(dr))...)
	var ready, booting, used, draining, wanted int
	for _, node := range v.Nodes {
		switch node.State {
		case fleet.NodeReady:
			ready++
		case fleet.NodeBooting:
			booting++
		case fleet.NodeCordoned, fleet.NodeDraining:
			draining++
		}
		if node.State != fleet.NodeGone && node.State != fleet.NodeDraining {
			wanted++
		}
		if node.Used > 0 {
			used++
		}
	}
	t.Row(terminal.Text("nodes", n(wanted), n(ready), n(booting), n(used), n(draining))...)
	return t
}

func queueText(v v1alpha1.FleetView) string {
	text := fmt.Sprintf("%d waiting", v.Backlog)
	if v.OldestAgeSeconds > 0 && v.Backlog > 0 {
		text += ", the oldest for " + seconds(v.OldestAgeSeconds)
	}
	text += fmt.Sprintf("; %d in flight", v.InFlight)
	if v.Delayed > 0 {
		text += fmt.Sprintf("; %d not due yet", v.Delayed)
	}
	if v.Dead > 0 {
		text += fmt.Sprintf("; %d set aside (dead letters)", v.Dead)
	}
	return text
}

// startObjective says how fast tasks start. The waits before a restart are
// not known, so that no more is said than the control plane has seen.
func startObjective(v v1alpha1.StartView, up time.Duration) string {
	window := "within the last hour"
	if up < time.Hour {
		window = "since muster is up"
	}
	if v.P99Seconds <= 0 {
		return "no task has started " + window + "; objective " + seconds(v.ObjectiveSeconds)
	}
	verdict := "met"
	if v.P99Seconds > v.ObjectiveSeconds {
		verdict = "missed"
	}
	return fmt.Sprintf("p50 %s, p99 %s %s; objective %s %s",
		seconds(v.P50Seconds), seconds(v.P99Seconds), window, seconds(v.ObjectiveSeconds), verdict)
}

func pools(s *shell, list []v1alpha1.PoolView) *terminal.Table {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "POOL", Flex: true, Least: 10}, right("WAITING"), right("OLDEST"), right("RATE"),
		right("DESIRED"), right("READY"), right("STARTING"), right("RUNNING"), right("LEAD P50/P99"), right("EMPTY IN"),
		terminal.Column{Title: "REASON", Flex: true, Least: 20})
	n := strconv.Itoa
	for _, p := range list {
		t.Row(terminal.Text(string(p.Pool), n(p.Backlog), seconds(p.OldestAgeSeconds), rate(p.ArrivalRate),
			n(p.Desired), n(p.Ready), n(p.Starting), n(p.Running), lead(p.StartLead), empty(p), poolReason(p))...)
	}
	return t
}

// rate is tasks per time, in the unit that gives a number above one.
func rate(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return ""
	case perSecond >= 1:
		return fmt.Sprintf("%.1f/s", perSecond)
	case perSecond*60 >= 1:
		return fmt.Sprintf("%.1f/min", perSecond*60)
	}
	return fmt.Sprintf("%.1f/h", perSecond*3600)
}

func lead(l v1alpha1.LeadView) string {
	if l.P50Seconds <= 0 {
		return ""
	}
	text := seconds(l.P50Seconds) + "/" + seconds(l.P99Seconds)
	if l.Samples == 0 {
		return "~" + text // assumed, not measured
	}
	return text
}

func empty(p v1alpha1.PoolView) string {
	if p.TimeToEmptySeconds == nil {
		return ""
	}
	return terminal.Age(time.Duration(*p.TimeToEmptySeconds * float64(time.Second)))
}

func poolReason(p v1alpha1.PoolView) string {
	if p.Bound != "" && !strings.Contains(p.Reason, p.Bound) {
		return p.Reason + " [" + p.Bound + "]"
	}
	return p.Reason
}

func breakerText(p v1alpha1.PoolView, now time.Time) string {
	text := fmt.Sprintf("breaker open: %s: %d starts failed in a row", terminal.Escape(string(p.Pool)), p.Breaker.Failures)
	if p.Breaker.Reason != "" {
		text += ": " + terminal.Escape(p.Breaker.Reason)
	}
	if left := p.Breaker.RetryAt.Sub(now); left > 0 {
		text += "; tries again in " + terminal.Age(left.Truncate(time.Second))
	}
	return text
}

// queues is the table of the queues that tasks come from.
func queues(s *shell, v v1alpha1.FleetView) *terminal.Table {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "QUEUE"}, right("WAITING"), right("OLDEST"), right("NOT DUE"), right("IN FLIGHT"), right("DEAD"), right("READ"),
		terminal.Column{Title: "PROBLEM", Flex: true, Least: 20})
	for _, q := range v.Queues {
		oldest, read := "", "never"
		if q.Backlog > 0 && q.OldestAgeSeconds > 0 {
			oldest = seconds(q.OldestAgeSeconds)
		}
		if !q.AsOf.IsZero() {
			read = terminal.Age(max(0, v.At.Sub(q.AsOf))) + " ago"
		}
		t.Row(terminal.Text(q.Name, strconv.Itoa(q.Backlog), oldest, strconv.Itoa(q.Delayed), strconv.Itoa(q.InFlight), strconv.Itoa(q.Dead), read, q.Error)...)
	}
	return t
}

func nodes(s *shell, list []fleet.NodeView) *terminal.Table {
	right := func(title string) terminal.Column { return terminal.Column{Title: title, Right: true} }
	t := s.table(terminal.Column{Title: "NODE", Flex: true, Least: 10}, terminal.Column{Title: "STATE"}, right("SANDBOXES"), right("CPU LIMITS"), right("MEMORY LIMITS"), right("DISK FREE"))
	for _, v := range list {
		t.Row(terminal.Text(string(v.ID), string(v.State), fmt.Sprintf("%d/%d", v.Used, v.Slots),
			fmt.Sprintf("%.1f/%.1f", float64(v.UsedMilliCPU)/1000, float64(v.MilliCPU)/1000),
			terminal.Bytes(v.UsedMemory)+"/"+terminal.Bytes(v.MemoryBytes), terminal.Bytes(v.DiskBytes))...)
	}
	return t
}
