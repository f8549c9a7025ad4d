package v1alpha1

// HTTPSignal reads the demand from HTTP.
type HTTPSignal struct{}

func (q *HTTPSignal) validate(*problems, string) {}
