package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// commitPatience bounds one commit: whoever waits for it may have to wait for
// the one before, too, and be done within 5 s.
const commitPatience = 2200 * time.Millisecond

// commits writes what is settled to the group's offsets, one commit at a time,
// each for all that came up during the one before.
func (s *Source) commits(ctx context.Context) {
	for {
		var retry <-chan time.Time
		if !s.commit(ctx) {
			retry = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			s.abandon()
			return
		case <-s.kick:
		case <-retry:
		}
	}
}

// abandon fails those who still wait at the end.
func (s *Source) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiters {
		w.done <- errClosed
	}
	s.waiters = nil
}

// commit writes once; false where that failed.
func (s *Source) commit(ctx context.Context) bool {
	s.mu.Lock()
	waiters, notes := s.awaiting(), map[*partition]note{}
	for _, p := range s.parts {
		if p.dirty {
			notes[p] = p.copy()
		}
	}
	for _, w := range waiters {
		if w.entry == nil {
			continue
		}
		n, ok := notes[w.part]
		if !ok {
			n = w.part.copy()
		}
		o := w.entry.record.Offset
		n.add(span{o, o + 1})
		delete(n.tries, o)
		n.seen = max(n.seen, n.mark)
		notes[w.part] = n
	}
	for p := range notes {
		p.dirty = false
	}
	client, topic := s.client, s.topicID
	s.mu.Unlock()

	var err error
	if len(notes) > 0 {
		err = s.send(ctx, batch{client, topic, notes})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range notes {
		p.dirty = p.dirty || err != nil
	}
	for _, w := range waiters {
		w.done <- s.settled(w, err)
	}
	s.sweep(time.Now())
	return err == nil
}

// awaiting takes the waiters there are, less those whose lease was lost.
func (s *Source) awaiting() (out []*waiter) {
	for _, w := range s.waiters {
		if w.part.lost {
			w.done <- errLost
			continue
		}
		out = append(out, w)
	}
	s.waiters = nil
	return out
}

// copy is the partition's note as it may be sent, unlocked.
func (p *partition) copy() note {
	return note{settled: p.settled.clone(), seen: p.seen, tries: maps.Clone(p.tries)}
}

// settled ends a waiter's wait, with what to tell it.
func (s *Source) settled(w *waiter, err error) error {
	e := w.entry
	switch {
	case e == nil:
		return err
	case err == nil:
		o := e.record.Offset
		w.part.add(span{o, o + 1})
		w.part.seen = max(w.part.seen, w.part.mark)
		delete(w.part.tries, o)
		delete(w.part.open, o)
		if e.state != gone {
			s.turn(e, gone)
		}
		return nil
	case w.part.lost || e.state == gone:
		return errLost
	}
	s.turn(e, held)
	s.dues.set(e, e.due)
	return err
}

// batch is one commit.
type batch struct {
	client *kgo.Client
	topic  kadm.TopicID
	notes  map[*partition]note
}

// send commits the notes.
func (s *Source) send(ctx context.Context, b batch) error {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	for {
		err := s.sendOnce(ctx, b)
		switch {
		case errors.Is(err, kerr.OffsetMetadataTooLarge) && !s.plain:
			s.plain = true // only the goroutine of commits reads it
			continue
		case err == nil || !transient(err) || s.allLost(b.notes):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Source) allLost(notes map[*partition]note) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range notes {
		if !p.lost {
			return false
		}
	}
	return true
}

func (s *Source) sendOnce(ctx context.Context, b batch) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = s.cfg.Group
	req.MemberID, req.Generation = b.client.GroupMetadata()
	if s.cfg.Member != "" {
		req.InstanceID = &s.cfg.Member
	}
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = s.cfg.Topic, b.topic // by name before Kafka 4.1, by identity since (KIP-848)
	for part, n := range b.notes {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = part.id, n.mark
		if !s.plain {
			p.Metadata = kmsg.StringPtr(n.encode())
		}
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, b.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}
