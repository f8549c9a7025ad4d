package v1alpha1

// NATSQueue is a queue in NATS.
type NATSQueue struct{}

func (q *NATSQueue) validate(*problems, string) {}
