package v1alpha1

// KafkaQueue is a queue in Kafka.
type KafkaQueue struct{}

func (q *KafkaQueue) validate(*problems, string) {}
