package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"muster.dev/muster/internal/fleet"
)

// Sign makes the value of the Muster-Signature header: t=UNIX,v1=HEX with the
// HMAC-SHA256 of "UNIX.BODY".
func Sign(secret []byte, at time.Time, body []byte) string {
	ts := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, secret)
	_, _ = m.Write([]byte(ts + "."))
	_, _ = m.Write(body)
	return "t=" + ts + ",v1=" + hex.EncodeToString(m.Sum(nil))
}

// Event is the CloudEvents form of a settled task. Environment and prompt are
// not part of it.
func Event(t fleet.Task) ([]byte, error) {
	type outcome struct {
		ID         fleet.TaskID      `json:"id"`
		Name       string            `json:"name,omitempty"`
		Labels     map[string]string `json:"labels,omitempty"`
		State      fleet.TaskState   `json:"state"`
		Reason     fleet.TaskReason  `json:"reason,omitempty"`
		Message    string            `json:"message,omitempty"`
		ExitCode   int               `json:"exitCode"`
		Attempt    int               `json:"attempt"`
		Submitted  time.Time         `json:"submittedAt"`
		Ended      time.Time         `json:"endedAt"`
		PatchBytes int64             `json:"patchBytes"`
	}
	return encode(cloudEvent{
		ID: string(t.ID) + "/settled", Type: "dev.muster.task.settled", Subject: string(t.ID), Time: t.EndedAt,
		Data: outcome{t.ID, t.Spec.Name, t.Spec.Labels, t.State, t.Result.Reason, t.Result.Message, t.Result.ExitCode, t.Attempt, t.SubmittedAt, t.EndedAt, t.Result.PatchBytes},
	})
}

// NoticeEvent is the CloudEvents form of a notice.
func NoticeEvent(n fleet.Notice) ([]byte, error) {
	return encode(cloudEvent{ID: n.ID, Type: n.Type, Subject: n.Subject, Time: n.At, Data: n.Data})
}

// cloudEvent is an event in structured mode; encode fills in what is the same
// for all.
type cloudEvent struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        any       `json:"data"`
}

func encode(e cloudEvent) ([]byte, error) {
	e.SpecVersion, e.Source, e.ContentType = "1.0", "/muster", "application/json"
	b, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode the event: %w", err)
	}
	return b, nil
}
