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
		fmt.Fprintf(&b, "%s failed in a row, next try in %s; ", plural(n.Failures, "boot", "boots"), short(n.Wait))
	case CauseIdleNode:
		if k := n.Ready + n.Starting - n.Desired; k > 0 {
			b.WriteString(plural(k, "empty node goes; ", "empty nodes go; "))
		} else {
			b.WriteString("what was cordoned goes; ")
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
	if n.Saves >= 0.005 {
		fmt.Fprintf(&b, "; one more would save %.2g late starts an hour, each worth %.0f node-seconds", n.Saves, n.Price)
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
	if b.Late {
		return fmt.Sprintf("the objective is breached at %s, since %s requested by %s", at, plural(b.Nodes, "more node was not", "more nodes were not"), by)
	}
	return fmt.Sprintf("the objective is breached at %s unless %s requested by %s", at, plural(b.Nodes, "more node is", "more nodes are"), by)
}

// verdict says that the money is used up.
func (n Numbers) verdict() string {
	return fmt.Sprintf("cap binds: waiting %s, $%.2f spent of $%.2f; running work goes on",
		plural(n.Backlog, "task", "tasks"), float64(n.Spent)/1e6, float64(n.Budget)/1e6)
}

// plural counts in words.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
