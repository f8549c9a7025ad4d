// Package keda serves KEDA's external-scaler protocol (gRPC service
// externalscaler.ExternalScaler, KEDA 2.21), so that a ScaledObject or ScaledJob
// takes Muster's plan as its metric: how many sandboxes, or nodes, there should
// be. The facts about the protocol are from its .proto file and from "External
// Scalers" in KEDA's documentation.
//
// The metric is the wanted count itself, not a length that the autoscaler makes
// a count of, so there is nothing to compound:
//
//   - metricType AverageValue (the default): the autoscaler divides the metric by
//     the target and takes that many replicas, whatever there are now.
//   - metricType Value: the autoscaler multiplies the replicas that are ready by
//     metric/target. The metric is then wanted/ready (shape: value), which comes to
//     wanted/target however many are ready. How many are ready is read as
//     spec.workers.actual says, which has to count replicas then.
//
// While Muster has not decided yet, calls fail with Unavailable, and the
// autoscaler keeps what there is: an unknown is never zero. When the queue
// cannot be read, the plan holds, and so does the metric.
//
// It may import fleet, and KEDA's protocol module.
package keda
