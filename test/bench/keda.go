package main

import (
	"fmt"
	"time"
)

// What KEDA and the autoscaler below it document:
//   - "Polling Interval" 30 s (pollingInterval, KEDA documentation, ScaledObject
//     specification): from no replica to the first it takes up to one of it;
//   - the autoscaler looks every 15 s (--horizontal-pod-autoscaler-sync-period,
//     Kubernetes documentation, Horizontal Pod Autoscaling);
//   - and adds at most the larger of 100 % and 4 pods in 15 s (the same page,
//     default behaviour of scaleUp).
const (
	kedaPoll = 30 * time.Second
	hpaSync  = 15 * time.Second
)

// hpaSyncs is how many looks of the autoscaler it takes from one number of
// replicas to another.
func hpaSyncs(from, to int) (n int) {
	for ; from < to; n++ {
		from = min(to, max(2*from, from+4))
	}
	return n
}

// kedaAll is when the last of n replicas is asked for, the wait for the first
// look of the autoscaler being half a period on average and a whole one at
// worst; with none at first, the wait for KEDA's own look comes before.
func kedaAll(from, n int) (expected, worst time.Duration) {
	if from == 0 {
		e, w := kedaAll(1, n)
		return e + kedaPoll/2, w + kedaPoll
	}
	later := time.Duration(hpaSyncs(from, n)-1) * hpaSync
	return hpaSync/2 + later, hpaSync + later
}

// printKEDA prints what KEDA's documented path comes to, with nodes that are
// there and pods that start in no time, and what it was measured to take.
func printKEDA() {
	fmt.Printf("\n  KEDA as documented, with pods that start in no time: expected (worst), s\n")
	cell := func(e, w time.Duration) string { return fmt.Sprintf("%.1f (%.1f)", e.Seconds(), w.Seconds()) }
	all, worst := kedaAll(0, pushed)
	fmt.Printf("  %-22s %26s %26s\n", "from 0 replicas", cell(kedaPoll/2, kedaPoll), cell(all, worst))
	all, worst = kedaAll(warmed, pushed)
	fmt.Printf("  %-22s %26s %26s\n", fmt.Sprintf("from %d idle replicas", warmed), "at once", cell(all, worst))
	// Real KEDA 2.21 and Kubernetes 1.37, Redis list, nodes of kwok that were up,
	// 2 processors, median of 5.
	fmt.Printf("  KEDA 2.21 as measured (Kubernetes 1.37, kwok nodes that are up, pods that start in no time, median of 5), s\n")
	fmt.Printf("  %-22s %26s %26s\n", "defaults, from 0", "15.2 (3.5 - 27.7)", "90.6 (70 - 103)")
	fmt.Printf("  %-22s %26s %26s\n", "poll 1 s, sync 1 s", "1.0", "2.4 (1.5 - 4.3)")
}
