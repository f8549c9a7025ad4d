package v1alpha1

// RabbitMQQueue is a queue in RabbitMQ.
type RabbitMQQueue struct{}

func (q *RabbitMQQueue) validate(*problems, string) {}
