package dispatch

import (
	"bytes"
	"io"
	"sync"

	"muster.dev/muster/internal/fleet"
)

// shelf is an archive in memory.
type shelf struct {
	mu    sync.Mutex
	logs  map[string][]byte
	files map[string][]byte
}

func newShelf() *shelf { return &shelf{logs: map[string][]byte{}, files: map[string][]byte{}} }

func key(id fleet.TaskID, attempt int) string { return string(id) + "." + string(rune('0'+attempt)) }

func (s *shelf) AppendLog(id fleet.TaskID, attempt int, r fleet.LogRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key(id, attempt)
	have := int64(len(s.logs[k]))
	if r.Offset > have {
		return fleet.ErrInvalid
	}
	if skip := have - r.Offset; skip < int64(len(r.Data)) {
		s.logs[k] = append(s.logs[k], r.Data[skip:]...)
	}
	return nil
}

func (s *shelf) LogSize(id fleet.TaskID, attempt int) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.logs[key(id, attempt)])), nil
}

func (s *shelf) log(id fleet.TaskID, attempt int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.logs[key(id, attempt)])
}

func (s *shelf) ReadLog(id fleet.TaskID, attempt int, offset int64, f func(fleet.LogRecord) error) error {
	text := s.log(id, attempt)
	for ; offset < int64(len(text)); offset += 5 {
		if err := f(fleet.LogRecord{Offset: offset, Stream: fleet.StreamStdout, Data: []byte(text[offset:min(offset+5, int64(len(text)))])}); err != nil {
			return err
		}
	}
	return nil
}

func (s *shelf) WatchLog(fleet.TaskID, int) (<-chan struct{}, func()) { return nil, func() {} }
func (s *shelf) EndLog(fleet.TaskID, int) error                       { return nil }
func (s *shelf) Tasks(func(fleet.TaskID) error) error                 { return nil }

func (s *shelf) PutFile(id fleet.TaskID, name string, r io.Reader) (int64, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[string(id)+"/"+name] = b
	return int64(len(b)), nil
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

func (s *shelf) OpenFile(id fleet.TaskID, name string) (io.ReadSeekCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.files[string(id)+"/"+name]
	if !ok {
		return nil, fleet.ErrNotFound
	}
	return nopCloser{bytes.NewReader(b)}, nil
}

func (s *shelf) Remove(fleet.TaskID) error { return nil }
