package archive

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"sync"

	"muster.dev/muster/internal/archive/names"
	"muster.dev/muster/internal/fleet"
)

// logFile is one log in use. refs, idle, writing and removed belong to
// Archive.mu; the rest to mu. A logFile without refs is not touched by anyone,
// so Archive.mu alone may close it.
type logFile struct {
	key     logKey
	refs    int
	idle    *list.Element
	writing bool // appended to since it was opened, and not ended
	removed bool

	mu    sync.Mutex
	file  *os.File
	known bool  // size, end and marks are right
	size  int64 // log bytes
	end   int64 // file bytes up to the end of the last whole record
	cut   bool  // the file may go on after end: cut it before appending
	marks []mark
	every int64 // log bytes between marks
}

// mark says where in the file a record of the log begins.
type mark struct{ offset, pos int64 }

const (
	markEvery = 64 << 10
	mostMarks = 1 << 10
)

// acquire returns the log for use until release.
func (a *Archive) acquire(k logKey) (*logFile, error) {
	if err := names.CheckLog(k.task, k.attempt); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("archive is closed: %w", fleet.ErrUnavailable)
	}
	l := a.logs[k]
	if l == nil {
		l = &logFile{key: k}
		a.logs[k] = l
	}
	l.refs++
	if l.idle != nil {
		a.idle.Remove(l.idle)
		l.idle = nil
	}
	return l, nil
}

// release gives a log back. Files beyond the bound are closed, the longest
// idle first; what is known of a log that is being written to is kept.
func (a *Archive) release(l *logFile) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l.refs--; l.refs > 0 {
		return
	}
	if l.removed {
		_ = l.shut()
		return
	}
	l.idle = a.idle.PushBack(l)
	for a.idle.Len() > a.most {
		a.drop(a.idle.Front().Value.(*logFile))
	}
}

// drop closes a log that nobody uses.
func (a *Archive) drop(l *logFile) {
	if l.idle != nil {
		a.idle.Remove(l.idle)
		l.idle = nil
	}
	_ = l.shut() // every write was checked; there is nothing left to fail
	if !l.writing && a.logs[l.key] == l {
		delete(a.logs, l.key)
	}
}

func (l *logFile) shut() error {
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}

// load opens the file, and reads it through when nothing is known of it yet.
// A log that does not exist is empty; file stays nil then unless create.
func (l *logFile) load(root *os.Root, create bool) error {
	if l.file == nil {
		flags := os.O_RDWR
		if create {
			flags |= os.O_CREATE
			if err := root.MkdirAll(taskDir(l.key.task), 0o700); err != nil {
				return kind(err)
			}
		}
		f, err := root.OpenFile(l.key.path(), flags, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return kind(err)
		}
		l.file = f
	}
	if l.known {
		return nil
	}
	return l.scan()
}

// scan finds the end of the last whole record. What follows it was torn by
// the death of the process, or of the machine.
func (l *logFile) scan() error {
	l.size, l.end, l.marks, l.every, l.cut = 0, 0, nil, markEvery, true
	head := make([]byte, len(magic))
	switch _, err := l.file.ReadAt(head, 0); {
	case errors.Is(err, io.EOF):
		l.known = true // shorter than its header: nothing is in it
		return nil
	case err != nil:
		return kind(err)
	case string(head) != magic:
		return fmt.Errorf("%s is not a log: %w", l.file.Name(), fleet.ErrCorrupt)
	}
	l.end = int64(len(magic))
	st, err := l.file.Stat()
	if err != nil {
		return kind(err)
	}
	r := newFrames(io.NewSectionReader(l.file, l.end, st.Size()-l.end), l.end, 0)
	for {
		f, err := r.next()
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, errTorn), errors.Is(err, errDamaged):
			l.known = true
			return nil
		case err != nil:
			return kind(err)
		}
		l.grown(f.pos, int64(len(f.Data)))
	}
}

// grown accounts for a record of n log bytes at pos.
func (l *logFile) grown(pos, n int64) {
	if len(l.marks) == 0 || l.size >= l.marks[len(l.marks)-1].offset+l.every {
		if len(l.marks) == mostMarks { // half as many, twice as far apart
			for i := range mostMarks / 2 {
				l.marks[i] = l.marks[2*i]
			}
			l.marks = l.marks[:mostMarks/2]
			l.every *= 2
		}
		l.marks = append(l.marks, mark{l.size, pos})
	}
	l.size += n
	l.end = pos + headerSize + n
}

// before is the last mark at or before offset.
func (l *logFile) before(offset int64) mark {
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].offset > offset })
	if i == 0 {
		return mark{0, int64(len(magic))}
	}
	return l.marks[i-1]
}

// AppendLog implements fleet.Archive.
func (a *Archive) AppendLog(id fleet.TaskID, attempt int, r fleet.LogRecord) error {
	l, err := a.acquire(logKey{id, attempt})
	if err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	defer a.release(l)
	a.mu.Lock()
	l.writing = true
	a.mu.Unlock()
	l.mu.Lock()
	grew, err := l.append(a.root, r)
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("append to log %d of task %s: %w", attempt, id, err)
	}
	if grew {
		a.wakeLog(l.key)
	}
	return nil
}

func (l *logFile) append(root *os.Root, r fleet.LogRecord) (grew bool, err error) {
	if err := l.load(root, true); err != nil {
		return false, err
	}
	if r.Offset > l.size || r.Offset < 0 {
		return false, fmt.Errorf("at %d, and %d bytes are stored: %w", r.Offset, l.size, fleet.ErrInvalid)
	}
	skip := l.size - r.Offset
	if skip >= int64(len(r.Data)) {
		return false, nil
	}
	data := r.Data[skip:]
	if l.cut {
		if err := l.trim(); err != nil {
			return false, err
		}
	}
	for len(data) > 0 {
		n := min(len(data), maxData)
		if err := l.put(appendRecord(make([]byte, 0, headerSize+n), r.At, r.Stream, data[:n]), int64(n)); err != nil {
			return grew, err
		}
		grew, data = true, data[n:]
	}
	return grew, nil
}

// put writes one record after the last; what is written of it in vain is cut.
func (l *logFile) put(b []byte, n int64) error {
	if _, err := l.file.WriteAt(b, l.end); err != nil {
		l.cut = true
		_ = l.trim() // if this fails too, the next append does it
		return kind(err)
	}
	l.grown(l.end, n)
	return nil
}

// trim cuts what follows the last whole record, and writes the header of a new
// file.
func (l *logFile) trim() error {
	if err := l.file.Truncate(l.end); err != nil {
		return kind(err)
	}
	if l.end == 0 {
		if _, err := l.file.WriteAt([]byte(magic), 0); err != nil {
			return kind(err)
		}
		l.end = int64(len(magic))
	}
	l.cut = false
	return nil
}

// LogSize implements fleet.Archive.
func (a *Archive) LogSize(id fleet.TaskID, attempt int) (int64, error) {
	l, err := a.acquire(logKey{id, attempt})
	if err != nil {
		return 0, fmt.Errorf("log size: %w", err)
	}
	defer a.release(l)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(a.root, false); err != nil {
		return 0, fmt.Errorf("size of log %d of task %s: %w", attempt, id, err)
	}
	return l.size, nil
}

// ReadLog implements fleet.Archive. It reads what was stored when it was
// called. A log of which nothing is stored is empty; one in which a record is
// damaged, with others after it, is read up to there and fleet.ErrCorrupt.
func (a *Archive) ReadLog(id fleet.TaskID, attempt int, offset int64, f func(fleet.LogRecord) error) error {
	l, err := a.acquire(logKey{id, attempt})
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer a.release(l)
	l.mu.Lock()
	err = l.load(a.root, false)
	file, from, end, cut := l.file, l.before(offset), l.end, l.cut
	l.mu.Unlock()
	if err == nil && file != nil {
		err = readFrames(io.NewSectionReader(file, from.pos, max(0, end-from.pos)), from, offset, f)
	}
	if err == nil && file != nil && cut && end > 0 {
		err = damage(file, end)
	}
	if err != nil {
		return fmt.Errorf("read log %d of task %s: %w", attempt, id, err)
	}
	return nil
}

func readFrames(r io.Reader, from mark, offset int64, f func(fleet.LogRecord) error) error {
	for fr := newFrames(r, from.pos, from.offset); ; {
		rec, err := fr.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("at %d: %w: %w", fr.offset, fleet.ErrCorrupt, err)
		}
		if skip := offset - rec.Offset; skip >= int64(len(rec.Data)) {
			continue
		} else if skip > 0 {
			rec.Offset, rec.Data = offset, rec.Data[skip:]
		}
		if err := f(rec.LogRecord); err != nil {
			return err
		}
	}
}

// damage is an error when what follows the last whole record is not merely an
// incomplete one.
func damage(file *os.File, end int64) error {
	st, err := file.Stat()
	if err != nil {
		return kind(err)
	}
	_, err = newFrames(io.NewSectionReader(file, end, st.Size()-end), end, 0).next()
	if errors.Is(err, errDamaged) {
		return fmt.Errorf("%d bytes cannot be read: %w: %w", st.Size()-end, fleet.ErrCorrupt, err)
	}
	return nil
}

// EndLog implements fleet.Archive; it syncs the log to disk.
func (a *Archive) EndLog(id fleet.TaskID, attempt int) error {
	l, err := a.acquire(logKey{id, attempt})
	if err != nil {
		return fmt.Errorf("end log: %w", err)
	}
	defer a.release(l)
	l.mu.Lock()
	if err = l.load(a.root, false); err == nil && l.file != nil {
		err = l.file.Sync()
	}
	l.mu.Unlock()
	a.mu.Lock()
	l.writing = false
	a.watchers.Wake(l.key)
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("end log %d of task %s: %w", attempt, id, kind(err))
	}
	return nil
}

// WatchLog implements fleet.Archive.
func (a *Archive) WatchLog(id fleet.TaskID, attempt int) (<-chan struct{}, func()) {
	return a.watchers.Watch(&a.mu, logKey{id, attempt})
}

func (a *Archive) wakeLog(k logKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers.Wake(k)
}
