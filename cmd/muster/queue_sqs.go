package main

import (
	"context"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/sqs"
)

func openSQS(ctx context.Context, q *v1alpha1.SQSQueue, o queueOptions) (fleet.Source, error) {
	return sqs.New(ctx, sqs.Config{
		Queue: q.Queue, Account: q.Account, Region: q.Region, DeadLetter: q.DeadLetterQueue,
		AccessKeyID: credential(q.AccessKeyID), SecretAccessKey: credential(q.SecretAccessKey), SessionToken: credential(q.SessionToken),
		AssumeRole: q.AssumeRole, ExternalID: q.ExternalID,
		Endpoint: q.Endpoint, STSEndpoint: q.STSEndpoint, CloudWatchEndpoint: q.CloudWatchEndpoint, TLS: tlsOf(q.TLS),
		CloudWatch: q.CloudWatch, NoPush: o.readOnly || q.LongPoll != nil && !*q.LongPoll, // a long poll takes a message for a moment
	})
}
