package queues

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"muster.dev/muster/internal/queue/queuetest/servers"
)

// openKafka is a topic of four partitions.
func openKafka(t testing.TB) *Queue {
	t.Helper()
	s := servers.StartKafka(t)
	s.Topic("tasks", 4)
	s.Topic("tasks.dead", 1)
	producer := s.Client(kgo.DefaultProduceTopic("tasks"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0))
	t.Cleanup(producer.Close)
	return &Queue{
		// static, since kfake lets a member that was killed stay for a minute.
		Block: fmt.Sprintf(`type: kafka, kafka: {brokers: ["%s"], topic: tasks, session: 6s, static: true}`, s.Address),
		Send: func(ctx context.Context, bodies ...string) error {
			records := make([]*kgo.Record, len(bodies))
			for i, b := range bodies {
				records[i] = kgo.StringRecord(b)
			}
			return producer.ProduceSync(ctx, records...).FirstErr()
		},
		// The lag of the group: from the first record that is not settled on.
		Count: func(ctx context.Context) (n Count, err error) {
			adm := kadm.NewClient(producer)
			ends, err := adm.ListEndOffsets(ctx, "tasks")
			if err == nil {
				err = ends.Error()
			}
			if err != nil {
				return n, err
			}
			committed, err := adm.FetchOffsets(ctx, "muster")
			if err == nil {
				err = committed.Error()
			}
			if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nobody has read yet
				return n, err
			}
			ends.Each(func(o kadm.ListedOffset) {
				done, _ := committed.Lookup(o.Topic, o.Partition)
				n.Waiting += o.Offset - max(0, done.At)
			})
			return n, nil
		},
		Dead: func(ctx context.Context) ([]Dead, error) { return kafkaDead(ctx, s) },
		Members: func(ctx context.Context) (int, error) {
			groups, err := kadm.NewClient(producer).DescribeGroups(ctx, "muster")
			if errors.Is(groups["muster"].Err, kerr.GroupIDNotFound) {
				return 0, nil
			}
			return len(groups["muster"].Members), errors.Join(err, groups["muster"].Err)
		},
		Stop: s.Stop, Start: s.Start,
	}
}

// kafkaDead reads the dead topic to its end.
func kafkaDead(ctx context.Context, s *servers.Kafka) ([]Dead, error) {
	c := s.Client(kgo.ConsumeTopics("tasks.dead"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer c.Close()
	ends, err := kadm.NewClient(c).ListEndOffsets(ctx, "tasks.dead")
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup("tasks.dead", 0)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out []Dead
	for int64(len(out)) < end.Offset {
		got := c.PollFetches(ctx)
		if err := got.Err(); err != nil {
			return nil, err
		}
		got.EachRecord(func(r *kgo.Record) {
			d := Dead{Body: string(r.Value)}
			for _, h := range r.Headers {
				if h.Key == "muster-dead-reason" {
					d.Reason = string(h.Value)
				}
			}
			out = append(out, d)
		})
	}
	return out, nil
}
