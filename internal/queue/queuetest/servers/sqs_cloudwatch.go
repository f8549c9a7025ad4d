package servers

import (
	"context"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/aws/smithy-go/encoding/cbor"
)

// Age sets what CloudWatch says of ApproximateAgeOfOldestMessage: the latest
// datapoint, in seconds, and the minute it belongs to; ok false: none, as for a
// queue that was not active ("Available CloudWatch metrics for Amazon SQS").
func (s *SQS) Age(tell func() (seconds float64, minute time.Time, ok bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age = tell
}

// Fill adds n messages of one byte by no means of the protocol.
func (s *SQS) Fill(_ context.Context, url string, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, _, err := s.queue(url)
	if err != nil {
		return err
	}
	q.bulk += n
	q.notify()
	return nil
}

// cloudWatch answers GetMetricData in the protocol that the SDK speaks, Smithy
// RPC v2 CBOR: https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html
func (s *SQS) cloudWatch(w http.ResponseWriter, r *http.Request, body []byte) {
	action := path.Base(r.URL.Path)
	err := s.signed(r, body, "monitoring")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[action]++
	h := w.Header()
	h.Set("Content-Type", "application/cbor")
	h.Set("Smithy-Protocol", "rpc-v2-cbor")
	answer := func(status int, v cbor.Map) {
		w.WriteHeader(status)
		_, _ = w.Write(cbor.Encode(v)) // a caller that is gone is its own affair
	}
	if err != nil || s.denied[action] {
		answer(http.StatusForbidden, cbor.Map{"__type": cbor.String("com.amazonaws.cloudwatch#AccessDeniedException"), "message": cbor.String("not authorized to perform: cloudwatch:" + action)})
		return
	}
	values, times := cbor.List{}, cbor.List{}
	if queue, known := queried(body); known && s.queues["/"+SQSAccount+"/"+queue] != nil && s.age != nil {
		if seconds, minute, ok := s.age(); ok {
			values = cbor.List{cbor.Float64(seconds)}
			times = cbor.List{&cbor.Tag{ID: 1, Value: cbor.Float64(minute.Unix())}}
		}
	}
	answer(http.StatusOK, cbor.Map{"MetricDataResults": cbor.List{cbor.Map{
		"Id": cbor.String("oldest"), "StatusCode": cbor.String("Complete"), "Values": values, "Timestamps": times,
	}}})
}

// queried is the queue whose oldest age a request asks for.
func queried(body []byte) (queue string, ok bool) {
	v, err := cbor.Decode(body)
	if err != nil {
		return "", false
	}
	in, _ := v.(cbor.Map)
	queries, _ := in["MetricDataQueries"].(cbor.List)
	if len(queries) != 1 || in["StartTime"] == nil || in["EndTime"] == nil {
		return "", false
	}
	query, _ := queries[0].(cbor.Map)
	stat, _ := query["MetricStat"].(cbor.Map)
	metric, _ := stat["Metric"].(cbor.Map)
	dimensions, _ := metric["Dimensions"].(cbor.List)
	if text(metric["Namespace"]) != "AWS/SQS" || text(metric["MetricName"]) != "ApproximateAgeOfOldestMessage" || len(dimensions) != 1 {
		return "", false
	}
	d, _ := dimensions[0].(cbor.Map)
	return text(d["Value"]), strings.EqualFold(text(d["Name"]), "QueueName")
}

func text(v cbor.Value) string {
	s, _ := v.(cbor.String)
	return string(s)
}
