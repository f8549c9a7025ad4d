package protocol_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/protocol"
)

// stream is a one-way pipe in memory.
type stream struct{ bytes.Buffer }

func (*stream) Close() error { return nil }

func conn(s *stream, max int) *protocol.Conn {
	return protocol.NewConn(s, protocol.Limits{MaxMessage: max})
}

func TestControlMessagesOfAnySizeArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(8000, 20000)).Draw(t, "prompt")
		sent := protocol.Claim{Assignment: fleet.Assignment{
			Task: "t", Fence: 3, Prompt: strings.Repeat("é<", n), Command: []string{"a", ""}, Env: map[string]string{"A": "\"\n"},
		}, LogOffset: 5}
		var s stream
		c := conn(&s, protocol.MaxFromHost)
		if err := c.Send(protocol.TypeClaim, sent); err != nil {
			t.Fatal(err)
		}
		typ, payload, err := c.Receive()
		if err != nil || typ != protocol.TypeClaim {
			t.Fatal(typ, err)
		}
		var got protocol.Claim
		if err := protocol.Decode(typ, payload, &got); err != nil {
			t.Fatal(err)
		}
		if got.Assignment.Prompt != sent.Assignment.Prompt || got.Assignment.Env["A"] != "\"\n" || got.LogOffset != 5 {
			t.Fatalf("got %.200v", got)
		}
		if _, _, err := c.Receive(); err != io.EOF { //nolint:errorlint // exactly
			t.Fatalf("then %v", err)
		}
	})
}

func TestRawFramesArrive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "data")
		h := protocol.LogHeader{
			Offset: rapid.Int64Range(0, 1<<62).Draw(t, "offset"), At: rapid.Int64().Draw(t, "at"),
			Stream: fleet.Stream(rapid.IntRange(1, 3).Draw(t, "stream")),
		}
		p := protocol.Position{Number: rapid.Uint32().Draw(t, "number"), Value: rapid.Int64().Draw(t, "value")}
		var s stream
		c := conn(&s, 0)
		if err := errors.Join(c.SendLog(h, data), c.SendPosition(protocol.TypeBlobPart, p, data), c.SendPosition(protocol.TypeLogAck, p, nil)); err != nil {
			t.Fatal(err)
		}
		_, payload, _ := c.Receive()
		gotH, gotData, err := protocol.ParseLog(payload)
		if err != nil || gotH != h || !bytes.Equal(gotData, data) {
			t.Fatal(gotH, err)
		}
		_, payload, _ = c.Receive()
		gotP, gotData, err := protocol.ParsePosition(protocol.TypeBlobPart, payload)
		if err != nil || gotP != p || !bytes.Equal(gotData, data) {
			t.Fatal(gotP, err)
		}
		_, payload, _ = c.Receive()
		if gotP, _, err = protocol.ParsePosition(protocol.TypeLogAck, payload); err != nil || gotP != p {
			t.Fatal(gotP, err)
		}
	})
}

func frame(typ byte, size uint32, payload string) string {
	var b [5]byte
	b[0] = typ
	binary.BigEndian.PutUint32(b[1:], size)
	return string(b[:]) + payload
}

func TestBrokenStreams(t *testing.T) {
	const part = 0x80
	hello := byte(protocol.TypeHello)
	for _, c := range []struct {
		name, in string
		want     error
	}{
		{"ends in the header", "\x01\x00", io.ErrUnexpectedEOF},
		{"ends in the payload", frame(hello, 10, "{}"), io.ErrUnexpectedEOF},
		{"huge length", frame(hello, 1<<31, ""), protocol.ErrProtocol},
		{"unknown type", frame(63, 0, ""), protocol.ErrProtocol},
		{"type zero", frame(0, 0, ""), protocol.ErrProtocol},
		{"raw frame in parts", frame(byte(protocol.TypeLog)|part, 1, "x"), protocol.ErrProtocol},
		{"another message inside", frame(hello|part, 1, "{") + frame(byte(protocol.TypeReady), 1, "}"), protocol.ErrProtocol},
		{"empty part", frame(hello|part, 1, "{") + frame(hello|part, 0, ""), protocol.ErrProtocol},
		{"too many parts", strings.Repeat(frame(hello|part, 1000, strings.Repeat("x", 1000)), 100), protocol.ErrProtocol},
		{"ends between parts", frame(hello|part, 1, "{"), io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s stream
			s.WriteString(c.in)
			if _, _, err := conn(&s, 0).Receive(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDecodeIsStrict(t *testing.T) {
	var s protocol.Stop
	for _, in := range []string{`{"task":"t","fence":1,"reason":"x","grace":1,"more":1}`, `{} {}`, `{}x`, `[]`, ``, `{"fence":"x"}`} {
		if err := protocol.Decode(protocol.TypeStop, []byte(in), &s); !errors.Is(err, protocol.ErrProtocol) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestReportWithTooManyArtifactsIsRefusedBeforeDecoding(t *testing.T) {
	in := []byte(`{"task":"t","fence":1,"exitCode":0,"patchBytes":0,"artifacts":[` + strings.Repeat(`{},`, 100000) + `{}]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := protocol.DecodeReport(in)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, protocol.ErrProtocol) {
		t.Error(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

// FuzzReceive feeds any bytes: nothing may panic, and memory stays bounded by
// what arrived.
func FuzzReceive(f *testing.F) {
	var s stream
	c := conn(&s, 0)
	_ = c.Send(protocol.TypeHello, protocol.Hello{Magic: protocol.Magic, Version: 1, State: protocol.StateNew})
	_ = c.SendLog(protocol.LogHeader{Offset: 1, At: 2, Stream: 1}, []byte("log"))
	_ = c.SendPosition(protocol.TypeHeartbeat, protocol.Position{Value: 1}, nil)
	_ = c.SendExec(protocol.TypeExecOut, protocol.ExecHeader{ID: 1, Stream: 1}, []byte("x"))
	_ = c.Send(protocol.TypeReport, fleet.RunReport{Task: "t", Artifacts: []fleet.Artifact{{Path: "a", Bytes: 1}}})
	f.Add(s.Bytes())
	f.Add([]byte(frame(byte(protocol.TypeReport)|0x80, 2, `{"`) + frame(byte(protocol.TypeReport), 1, `}`)))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s stream
		s.Write(in)
		c := conn(&s, 100<<10)
		for {
			typ, payload, err := c.Receive()
			if err != nil {
				return
			}
			if len(payload) > len(in) || len(payload) > 100<<10+protocol.MaxPayload {
				t.Fatalf("%d bytes of payload from %d", len(payload), len(in))
			}
			parse(t, typ, payload)
		}
	})
}

func parse(t *testing.T, typ protocol.Type, payload []byte) {
	switch typ {
	case protocol.TypeLog:
		if h, data, err := protocol.ParseLog(payload); err == nil && (len(data) == 0 || h.Offset < 0) {
			t.Fatal("empty log accepted")
		}
	case protocol.TypeExecOut, protocol.TypeExecIn:
		_, _, _ = protocol.ParseExec(typ, payload)
	case protocol.TypeReport:
		if r, err := protocol.DecodeReport(payload); err == nil {
			if len(r.Artifacts) > protocol.MaxArtifacts {
				t.Fatal("too many artifacts")
			}
			again, _ := json.Marshal(r)
			if _, err := protocol.DecodeReport(again); err != nil && len(again) < protocol.MaxFromRunner {
				t.Fatal(err)
			}
		}
	case protocol.TypeHello:
		var h protocol.Hello
		_ = protocol.DecodeLoose(typ, payload, &h)
	default:
		_, _, _ = protocol.ParsePosition(typ, payload)
	}
}
