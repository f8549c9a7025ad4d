package v1alpha1

// RedisQueue is a queue in Redis.
type RedisQueue struct{}

func (q *RedisQueue) validate(*problems, string) {}
