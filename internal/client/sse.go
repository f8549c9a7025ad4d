package client

import (
	"bufio"
	"errors"
	"io"
	"strings"
)

// maxEvent bounds one server-sent event. A log record is at most 64 KiB, half
// as much again in base64.
const maxEvent = 1 << 20

// serverEvent is one server-sent event.
type serverEvent struct {
	ID   string // the last id seen; sticky, as the standard says
	Kind string
	Data string
}

// eventReader parses text/event-stream.
type eventReader struct {
	r  *bufio.Reader
	id string
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{r: bufio.NewReaderSize(r, 64<<10)}
}

var errEventTooLarge = errors.New("a server-sent event is larger than 1 MiB")

// next returns the next event that has data. An event cut off by the end of
// the stream is dropped, as the standard says.
func (e *eventReader) next() (serverEvent, error) {
	var (
		event serverEvent
		data  []string
		size  int
	)
	for {
		line, err := e.line(maxEvent - size)
		if err != nil {
			return serverEvent{}, err
		}
		size += len(line)
		if line == "" {
			if len(data) == 0 {
				event, size = serverEvent{}, 0
				continue
			}
			event.Data, event.ID = strings.Join(data, "\n"), e.id
			return event, nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "data":
			data = append(data, value)
		case "event":
			event.Kind = value
		case "id":
			if !strings.ContainsRune(value, 0) {
				e.id = value
			}
		}
	}
}

// line reads one line, without its end, of at most most bytes.
func (e *eventReader) line(most int) (string, error) {
	var b strings.Builder
	for {
		part, err := e.r.ReadSlice('\n')
		if b.Len()+len(part) > most {
			return "", errEventTooLarge
		}
		b.Write(part)
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(b.String(), "\n"), "\r"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}
