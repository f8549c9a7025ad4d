package plan

import (
	"fmt"
	"strings"
	"time"
)

// ofNodes tells a reason of the node layer: only there has a late start a
// price.
func (r Reason) ofNodes() bool { return r.Numbers.Price > 0 }

// nodeSentence says what the node layer is sized for, and what binds it.
func (r Reason) nodeSentence() string {
	n := r.Numbers
	var b strings.Builder
	switch r.Cause {
	case CauseBudget:
		b.WriteString(n.verdict() + "; ")
	case CauseBreaker:
		fmt.Fprintf(&b, "%s failed in a row, ", plural(n.Failures, "boot", "boots"))
		if n.Wait > 0 {
			fmt.Fprintf(&b, "next try in %s; ", short(n.Wait))
		} else {
			b.WriteString("few are tried at a time until one succeeds; ")
		}
	case CauseIdleNode:
		if k := n.Ready + n.Starting - n.Desired; k > 0 {
			b.WriteString(plural(k, "empty node goes; ", "empty nodes go; "))
		} else {
			b.WriteString(plural(n.Draining, "cordoned node goes; ", "cordoned nodes go; "))
		}
	}
	fmt.Fprintf(&b, "%s wanted: %s busy or waited for, ", plural(n.Desired, "node", "nodes"), plural(n.Count, "slot", "slots"))
	if n.Free < 0 {
		fmt.Fprintf(&b, "%d too few", -n.Free)
	} else {
		fmt.Fprintf(&b, "%d free", n.Free)
	}
	if n.Warm > 0 {
		fmt.Fprintf(&b, " for warm stock of %d", n.Warm)
	}
	fmt.Fprintf(&b, "; have %d ready, %d booting", n.Ready, n.Starting)
	if n.Draining > 0 {
		fmt.Fprintf(&b, ", %d cordoned", n.Draining)
	}
	fmt.Fprintf(&b, "; a boot takes %s", short(n.Lead))
	if n.Saves >= 0.05 {
		fmt.Fprintf(&b, "; one more would save %s late starts an hour, each worth %.0f node-seconds", round(n.Saves), n.Price)
	}
	if x := r.Breach; x != nil {
		b.WriteString("; " + x.sentence())
	}
	if r.Cause == CauseCapacity {
		b.WriteString("; no more are allowed")
	}
	return b.String()
}

// sentence says the breach in words.
func (b *Breach) sentence() string {
	at, by := b.At.UTC().Format(time.TimeOnly), b.By.UTC().Format(time.TimeOnly)
	switch {
	case b.Over:
		return fmt.Sprintf("the objective has been breached since %s; %s missing", at, plural(b.Nodes, "node is", "nodes are"))
	case b.Late:
		return fmt.Sprintf("the objective is breached at %s; to prevent it, %s had to be requested by %s", at, plural(b.Nodes, "more node", "more nodes"), by)
	}
	return fmt.Sprintf("the objective is breached at %s unless %s requested by %s", at, plural(b.Nodes, "more node is", "more nodes are"), by)
}

// verdict says that the money is used up.
func (n Numbers) verdict() string {
	tasks := "no task waits"
	if n.Backlog > 0 {
		tasks = "waiting " + plural(n.Backlog, "task", "tasks")
	}
	s := fmt.Sprintf("cap binds: %s, $%.2f spent of $%.2f; running work goes on",
		tasks, float64(n.Spent)/1e6, float64(n.Budget)/1e6)
	if n.Wait > 0 {
		s += ", and the budget begins anew in " + short(n.Wait)
	}
	return s
}

// round leaves two digits where that is shorter than all of them.
func round(x float64) string {
	if x >= 10 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

// plural counts in words.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
