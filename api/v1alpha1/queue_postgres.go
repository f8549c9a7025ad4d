package v1alpha1

// PostgresQueue is a queue in PostgreSQL.
type PostgresQueue struct{}

func (q *PostgresQueue) validate(*problems, string) {}
