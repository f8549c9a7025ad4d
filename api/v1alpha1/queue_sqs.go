package v1alpha1

// SQSQueue is a queue in SQS.
type SQSQueue struct{}

func (q *SQSQueue) validate(*problems, string) {}
