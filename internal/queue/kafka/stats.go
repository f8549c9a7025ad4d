package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"muster.dev/muster/internal/fleet"
)

// Stats implements fleet.Signal. It asks for what the group committed, then for
// the first and last offsets of the topic's and the dead topic's partitions, in
// a few round trips, whatever the length of the queue.
func (s *Source) Stats(ctx context.Context) (fleet.SignalStats, error) {
	const op = "stats"
	if _, err := s.begin(ctx, op); err != nil {
		return fleet.SignalStats{}, err
	}
	client := s.client
	before := map[*partition]int64{}
	for _, p := range s.parts {
		before[p] = p.next
	}
	s.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	r, err := s.survey(bounded, kadm.NewClient(client))
	if err != nil {
		return fleet.SignalStats{}, failure(ctx, op, s.cause(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, next := range before {
		if end, ok := r.ends.Lookup(s.cfg.Topic, p.id); ok && end.Offset < next && !p.lost {
			// Another log under the old name, or one cut short: what we know of
			// it is void.
			s.renew()
			return fleet.SignalStats{}, failure(ctx, op, fmt.Errorf("partition %d ends at %d, records to %d were read: the topic was made anew: %w", p.id, end.Offset, next, fleet.ErrUnavailable))
		}
	}
	st := s.count(r)
	if s.cfg.ReadOnly {
		st = ofOthers(st)
	}
	return st, nil
}

// cause is why a reading failed, where more is known than its error says.
func (s *Source) cause(err error) error {
	if s.life.Err() != nil {
		return errClosed
	}
	if s.cfg.ReadOnly { // told at once: no member of a group goes on trying
		if refused := s.contact.refused(); refused != nil {
			return refused
		}
	}
	if c := s.contact.trouble(time.Now()); c != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(c, fleet.ErrDenied)) {
		return c
	}
	return err
}

// renew gives all partitions up and joins the group with a new client.
func (s *Source) renew() {
	for _, p := range s.parts {
		s.drop(p)
	}
	s.again()
}

// reading is what the brokers know.
type reading struct {
	asOf         time.Time
	starts, ends kadm.ListedOffsets
	commits      kadm.OffsetResponses
}

func (s *Source) survey(ctx context.Context, adm *kadm.Client) (reading, error) {
	r := reading{asOf: time.Now()}
	topics := []string{s.cfg.Topic}
	if s.cfg.DeadTopic != "" {
		topics = append(topics, s.cfg.DeadTopic)
	}
	ends := adm.ListCommittedOffsets
	if s.cfg.ReadOnly {
		ends = adm.ListEndOffsets // others may read what is not committed, and be past the last that is
	}
	// The commits first: one that came after the end was read would be past it,
	// as if it were of another log, and all that is retained would be backlog.
	var err error
	if r.commits, err = s.committed(ctx, adm); err != nil {
		return r, err
	}
	var errs [2]error
	var wg sync.WaitGroup
	wg.Go(func() { r.ends, errs[0] = ends(ctx, topics...) })
	wg.Go(func() { r.starts, errs[1] = adm.ListStartOffsets(ctx, topics...) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return r, err
	}
	for topic, parts := range r.ends {
		for p, end := range parts {
			start, _ := r.starts.Lookup(topic, p)
			err := errors.Join(end.Err, start.Err)
			if topic == s.cfg.DeadTopic && errors.Is(err, kerr.UnknownTopicOrPartition) {
				delete(r.ends, topic) // nothing was set aside yet
				break
			}
			if err != nil {
				return r, fmt.Errorf("topic %s: %w", topic, err)
			}
		}
	}
	if len(r.ends[s.cfg.Topic]) == 0 {
		return r, fmt.Errorf("topic %s: %w", s.cfg.Topic, kerr.UnknownTopicOrPartition)
	}
	return r, nil
}

// committed is what the group committed of the topic.
func (s *Source) committed(ctx context.Context, adm *kadm.Client) (kadm.OffsetResponses, error) {
	all, err := adm.FetchOffsets(ctx, s.cfg.Group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // which is: nothing yet
		return nil, fmt.Errorf("offsets of group %s: %w", s.cfg.Group, err)
	}
	for id, c := range all[s.cfg.Topic] {
		if c.Err != nil {
			return nil, fmt.Errorf("offset of group %s in partition %d: %w", s.cfg.Group, id, c.Err)
		}
	}
	return all, nil
}

// count adds up: of our own partitions from memory, which is ahead of what is
// committed; of others' from what they committed.
func (s *Source) count(r reading) fleet.SignalStats {
	st := fleet.SignalStats{AsOf: r.asOf}
	for id, end := range r.ends[s.cfg.Topic] {
		start, _ := r.starts.Lookup(s.cfg.Topic, id)
		st.Arrived += end.Offset
		if p := s.parts[id]; p != nil {
			s.retained(p, start.Offset)
			all := max(end.Offset, p.next) - p.mark - p.below(max(end.Offset, p.next))
			busy, later := int64(p.busy), int64(p.later)
			st.InFlight += busy
			st.Delayed += later
			st.Backlog += max(0, all-busy-later)
			continue
		}
		n := note{settled: settled{mark: start.Offset}, seen: start.Offset}
		if c, ok := r.commits.Lookup(s.cfg.Topic, id); ok && c.At >= 0 && c.At <= end.Offset {
			n = decodeNote(c.At, c.Metadata)
			n.add(span{n.mark, start.Offset}) // removed by retention
			n.seen = max(n.seen, n.mark)
		}
		n.seen = min(n.seen, end.Offset)
		out := n.seen - n.mark - n.below(n.seen)
		st.InFlight += out
		st.Backlog += max(0, end.Offset-n.mark-n.below(end.Offset)-out)
	}
	for id, end := range r.ends[s.cfg.DeadTopic] {
		start, _ := r.starts.Lookup(s.cfg.DeadTopic, id)
		st.Dead += end.Offset - start.Offset
	}
	for _, e := range s.ready {
		if at := e.record.Timestamp; st.Oldest.IsZero() || at.Before(st.Oldest) {
			st.Oldest = at
		}
	}
	if st.Backlog == 0 {
		st.Oldest = time.Time{}
	}
	if st.Oldest.After(r.asOf) {
		st.Oldest = r.asOf // a producer's clock ahead of ours
	}
	return st
}

// retained notices records that retention removed before anybody had them.
func (s *Source) retained(p *partition, start int64) {
	if start <= p.mark || start <= p.next {
		return
	}
	// Those below next are in memory, settled or to be worked off.
	if missing := start - p.next - p.below(start) + p.below(p.next); missing > 0 {
		s.cfg.Log.Warn("kafka: records were removed before they were worked off: the topic's retention is shorter than the backlog takes",
			"topic", s.cfg.Topic, "partition", p.id, "records", missing, "first", p.next)
	}
	p.skip(span{p.next, start})
	p.next = start
	poke(s.kick)
}

// setAside writes an entry's record to the dead topic, and makes that first
// where it does not exist.
func (s *Source) setAside(ctx context.Context, client *kgo.Client, e *entry, why string) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case s.asideMu <- struct{}{}:
		defer func() { <-s.asideMu }()
	case <-bounded.Done():
		return bounded.Err()
	}
	adm := kadm.NewClient(client)
	topics, err := adm.ListTopics(bounded, s.cfg.DeadTopic)
	if err == nil && errors.Is(topics[s.cfg.DeadTopic].Err, kerr.UnknownTopicOrPartition) {
		_, err = adm.CreateTopic(bounded, -1, -1, nil, s.cfg.DeadTopic)
		if errors.Is(err, kerr.TopicAlreadyExists) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.cfg.DeadTopic, err)
	}
	done := make(chan error, 1)
	client.Produce(bounded, s.cfg.aside(e, why), func(_ *kgo.Record, err error) { done <- err })
	select {
	case err = <-done:
	case <-bounded.Done():
		err = bounded.Err()
	}
	if err != nil {
		return fmt.Errorf("topic %s: %w", s.cfg.DeadTopic, err)
	}
	return nil
}
