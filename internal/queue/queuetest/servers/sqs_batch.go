package servers

import (
	"errors"
	"regexp"
	"time"
)

type identified struct {
	ID string `json:"Id"`
}

func (e identified) id() string { return e.ID }

type batchOf[E any] struct {
	ofQueue
	Entries []E
}

type entry interface{ id() string }

var batchID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// checkBatch is what the three batches have in common; see the errors of
// SendMessageBatch in the API Reference.
func checkBatch[E entry](entries []E) error {
	if len(entries) == 0 {
		return refuse("EmptyBatchRequest", "There should be at least one entry in the request.")
	}
	if len(entries) > sqsBatch {
		return refuse("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10. You have sent %d.", len(entries))
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if !batchID.MatchString(e.id()) {
			return refuse("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		}
		if seen[e.id()] {
			return refuse("BatchEntryIdsNotDistinct", "Id %s repeated.", e.id())
		}
		seen[e.id()] = true
	}
	return nil
}

// batch does each entry for itself: some may fail while the call succeeds.
func batch[E entry](s *SQS, action string, in batchOf[E], do func(*sqsQueue, time.Time, E) (map[string]any, error)) (any, error) {
	q, now, err := s.queue(in.QueueURL)
	if err != nil {
		return nil, err
	}
	if err := checkBatch(in.Entries); err != nil {
		return nil, err
	}
	successful, failed := []map[string]any{}, []map[string]any{}
	for _, e := range in.Entries {
		err := s.faulty(action)
		var out map[string]any
		if err == nil {
			out, err = do(q, now, e)
		}
		var refused *apiError
		if errors.As(err, &refused) {
			failed = append(failed, map[string]any{"Id": e.id(), "Code": refused.code, "Message": refused.message, "SenderFault": refused.status < 500})
			continue
		}
		if out == nil {
			out = map[string]any{}
		}
		out["Id"] = e.id()
		successful = append(successful, out)
	}
	return map[string]any{"Successful": successful, "Failed": failed}, nil
}

type sendEntry struct {
	identified
	sendInput
}

func (s *SQS) sendBatch(in batchOf[sendEntry]) (any, error) {
	total := 0
	for _, e := range in.Entries {
		total += e.size()
	}
	if total > sqsLargest {
		return nil, refuse("BatchRequestTooLong", "Batch requests cannot be longer than %d bytes. You have sent %d bytes.", sqsLargest, total)
	}
	return batch(s, "SendMessageBatch", in, func(q *sqsQueue, now time.Time, e sendEntry) (map[string]any, error) {
		return s.send(q, now, e.sendInput)
	})
}

type deleteEntry struct {
	identified
	handled
}

func (s *SQS) deleteBatch(in batchOf[deleteEntry]) (any, error) {
	return batch(s, "DeleteMessageBatch", in, func(q *sqsQueue, now time.Time, e deleteEntry) (map[string]any, error) {
		return nil, q.remove(now, e.ReceiptHandle)
	})
}

type changeEntry struct {
	identified
	handled
	VisibilityTimeout int
}

func (s *SQS) changeBatch(in batchOf[changeEntry]) (any, error) {
	return batch(s, "ChangeMessageVisibilityBatch", in, func(q *sqsQueue, now time.Time, e changeEntry) (map[string]any, error) {
		return nil, q.change(now, e.ReceiptHandle, e.VisibilityTimeout)
	})
}
