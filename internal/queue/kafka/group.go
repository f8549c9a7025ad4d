package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// assigned takes up partitions, from what was committed of them. It is called
// before their records are fetched.
func (s *Source) assigned(ctx context.Context, client *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	adm := kadm.NewClient(client)
	topics, err := adm.ListTopics(ctx, s.cfg.Topic)
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.cfg.Topic, err)
	}
	ends, err := adm.ListEndOffsets(ctx, s.cfg.Topic)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", s.cfg.Topic, err)
	}
	starts, err := adm.ListStartOffsets(ctx, s.cfg.Topic)
	if err != nil {
		return fmt.Errorf("offsets of %s: %w", s.cfg.Topic, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
	s.topicID = topics[s.cfg.Topic].ID
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			if t.Topic != s.cfg.Topic {
				continue
			}
			for _, c := range t.Partitions {
				if err := s.takeUp(c, starts, ends); err != nil {
					return err
				}
			}
		}
	}
	poke(s.kick)
	s.wakeUp()
	return nil
}

// takeUp takes up one partition; an error has the group joined again.
func (s *Source) takeUp(c kmsg.OffsetFetchResponseGroupTopicPartition, starts, ends kadm.ListedOffsets) error {
	if s.parts[c.Partition] != nil || c.ErrorCode != 0 {
		return nil
	}
	end, known := ends.Lookup(s.cfg.Topic, c.Partition)
	first, also := starts.Lookup(s.cfg.Topic, c.Partition)
	if err := errors.Join(end.Err, first.Err); err != nil || !known || !also {
		return fmt.Errorf("partition %d is not known yet: %w", c.Partition, errors.Join(err, kerr.LeaderNotAvailable))
	}
	p := restore(c, end.Offset)
	if p.next < 0 {
		p.skip(span{0, first.Offset})
		p.next = p.mark
	}
	s.retained(p, first.Offset)
	s.parts[c.Partition] = p
	return nil
}

// restore makes a partition of what was committed of it. Without a commit next
// is negative: it begins at the oldest record; as it does where the log ends
// before what was committed, since then it is another log.
func restore(c kmsg.OffsetFetchResponseGroupTopicPartition, end int64) *partition {
	p := &partition{id: c.Partition, next: -1, open: map[int64]*entry{}}
	if c.Offset >= 0 && c.Offset <= end {
		meta := ""
		if c.Metadata != nil {
			meta = *c.Metadata
		}
		p.note, p.next = decodeNote(c.Offset, meta), c.Offset
	}
	if p.tries == nil {
		p.tries = map[int64]int{}
	}
	return p
}

// name is a topic's identity in short: one that is made anew under its old name
// has new messages at the old offsets. Empty where brokers give none (Kafka
// before 2.8).
func name(id kadm.TopicID) string {
	if id == (kadm.TopicID{}) {
		return ""
	}
	return "@" + base64.RawURLEncoding.EncodeToString(id[:6])
}

// revoked gives partitions up, after the tasks that are about to end did.
func (s *Source) revoked(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	var leaving []*partition
	s.mu.Lock()
	for _, id := range m[s.cfg.Topic] {
		if p := s.parts[id]; p != nil {
			p.leaving, p.dirty = true, true
			s.unoffer(p)
			leaving = append(leaving, p)
		}
	}
	s.mu.Unlock()
	if len(leaving) == 0 {
		return
	}
	s.calm(leaving)
	// The waiter of no entry waits for the commit of whatever is dirty: what
	// was handed out, how often. What is settled was committed when it was.
	w := &waiter{part: leaving[0], done: make(chan error, 1)}
	s.enqueue(w)
	select {
	case err := <-w.done:
		if err != nil {
			s.cfg.Log.Warn("kafka: partitions are given up without a last commit: their next owner counts fewer deliveries", "topic", s.cfg.Topic, "error", err)
		}
	case <-time.After(commitPatience):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range leaving {
		s.drop(p)
	}
}

// calm waits until no lease is left of the partitions, no longer than the
// handover lasts and not at all when closing.
func (s *Source) calm(parts []*partition) {
	const step = 20 * time.Millisecond
	for end := time.Now().Add(*s.cfg.Handover); time.Now().Before(end); time.Sleep(step) {
		s.mu.Lock()
		busy := 0
		for _, p := range parts {
			busy += p.busy
		}
		closed := s.closed
		s.mu.Unlock()
		if busy == 0 || closed {
			return
		}
	}
}

// lost forgets partitions that others may have by now.
func (s *Source) lost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range m[s.cfg.Topic] {
		if p := s.parts[id]; p != nil {
			s.drop(p)
		}
	}
}

// waiter waits for a commit: of its entry's settlement, or of whatever there is.
type waiter struct {
	entry *entry // may be nil
	part  *partition
	done  chan error // takes one
}

func (s *Source) enqueue(w *waiter) {
	s.mu.Lock()
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	poke(s.kick)
}

// transient are answers to a commit of a member that is just being told of a
// new generation of the group, or was lost and does not know yet: then lost is
// called soon.
func transient(err error) bool {
	for _, e := range []error{kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.FencedInstanceID} {
		if errors.Is(err, e) {
			return true
		}
	}
	return kerr.IsRetriable(err)
}
