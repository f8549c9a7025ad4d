package v1alpha1

// TemporalSignal reads the demand from Temporal.
type TemporalSignal struct{}

func (q *TemporalSignal) validate(*problems, string) {}
