package link

import (
	"fmt"
	"io"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// ackEvery is how many stored log bytes go unacknowledged while more wait.
const ackEvery = protocol.LogWindow / 4

// drain hands the events of one connection to the sink until there are no
// more. An error is the sink's, or of writing to the runner.
func (c *claim) drain(cn *conn, in *inbox) error {
	var stored, acked int64
	for {
		it, ok := in.pop()
		if !ok {
			return nil
		}
		var err error
		switch it.kind {
		case itemLog:
			if err = c.sink.Log(it.offset, it.at, it.stream, it.data); err != nil {
				return fmt.Errorf("store log: %w", err)
			}
			stored = it.offset + int64(len(it.data))
			if stored-acked >= ackEvery || !in.logWaits() {
				acked = stored
				err = cn.pc.SendPosition(protocol.TypeLogAck, protocol.Position{Value: stored}, nil)
			}
		case itemPhase:
			if err = c.sink.Phase(it.phase, it.at); err != nil {
				return fmt.Errorf("store phase: %w", err)
			}
		case itemBlob:
			if err = c.file(cn, in, it.blob); err != nil {
				return err
			}
		case itemReport:
			return c.report(cn, it.report)
		case itemBlobPart: // a rest the sink did not want
		}
		if err != nil {
			// The runner is gone; what it sent before is still good.
			cn.close(err)
		}
	}
}

func (c *claim) report(cn *conn, r fleet.RunReport) error {
	if err := c.sink.Done(r); err != nil {
		return fmt.Errorf("store report: %w", err)
	}
	c.s.mu.Lock()
	c.done = true
	c.s.state = protocol.StateDone
	c.s.mu.Unlock()
	_ = cn.pc.Send(protocol.TypeReportAck, c.ref) // if it does not arrive, the next hello asks
	return nil
}

// file hands one file to the sink and tells the runner when it is stored.
func (c *claim) file(cn *conn, in *inbox, b protocol.Blob) error {
	r := &blobReader{cn: cn, in: in, b: b}
	var err error
	if b.Path == "" {
		err = c.sink.Patch(b.Size, r)
	} else {
		err = c.sink.Artifact(fleet.Artifact{Path: b.Path, Bytes: b.Size}, r)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r) // what the sink did not read
	}
	if err != nil {
		if r.broken {
			return nil // the connection broke; the runner will send it again
		}
		return fmt.Errorf("store file %q: %w", b.Path, err)
	}
	_ = cn.pc.SendPosition(protocol.TypeBlobAck, protocol.Position{Number: b.File, Value: protocol.BlobStored}, nil)
	return nil
}

// blobReader yields the bytes of one file as they arrive.
type blobReader struct {
	cn     *conn
	in     *inbox
	b      protocol.Blob
	rest   []byte
	read   int64 // taken from the inbox
	acked  int64
	broken bool
}

func (r *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.rest) == 0 {
		if r.read == r.b.Size {
			return 0, io.EOF
		}
		it, ok := r.in.pop()
		if !ok || it.kind != itemBlobPart {
			r.broken = true
			return 0, io.ErrUnexpectedEOF
		}
		r.rest = it.data
		r.read += int64(len(it.data))
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	if len(r.rest) == 0 && r.read < r.b.Size && r.read-r.acked >= protocol.BlobWindow/4 {
		r.acked = r.read
		// An error shows at the next pop.
		_ = r.cn.pc.SendPosition(protocol.TypeBlobAck, protocol.Position{Number: r.b.File, Value: r.read}, nil)
	}
	return n, nil
}
