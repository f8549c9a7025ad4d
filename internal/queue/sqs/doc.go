// Package sqs takes work from a queue of Amazon SQS.
package sqs
