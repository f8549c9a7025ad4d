package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// stream is who takes a connection over, and whether its runner has no session
// yet.
type stream struct {
	peer  Peer
	first bool
}

// upgrade takes the connection from the HTTP server and gives it to the peer.
// The runner hears 101 only once the peer has taken it.
func (g *Gateway) upgrade(w http.ResponseWriter, r *http.Request, id Identity, s stream) error {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(w, later)
		return fmt.Errorf("take the connection over: %w", err)
	}
	_ = nc.SetDeadline(time.Time{}) // those of the head
	u := &upgraded{Conn: nc, early: rw.Reader, uid: id.UID, name: id.Pod}
	if s.first {
		u.session = g.Session(id.UID)
		// Only who has read the answer knows the session, and says hello.
		u.heard = func() { g.used.mark(id.UID) }
	}
	give := s.peer.Link
	if r.URL.Path == PathEgress {
		give = s.peer.Egress
	}
	if err := give(u); err != nil {
		u.refuse(asAnswer(err))
		return err
	}
	return u.accept()
}

// upgraded is a connection after its request. It is a net.Conn whose first use
// answers 101.
type upgraded struct {
	net.Conn
	uid     string
	name    string // of the pod
	session string // to be told; empty: it is known
	heard   func() // called before the first byte is handed on; may be nil

	once  sync.Once
	err   error         // of the answer
	early *bufio.Reader // what came with the head; nil once it is empty
}

var errRefused = errors.New("refused")

// accept answers 101, once.
func (u *upgraded) accept() error {
	u.once.Do(func() {
		head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n"
		if u.session != "" {
			head += "Muster-Pod: " + u.uid + "\r\nMuster-Session: " + u.session + "\r\n"
			if _, ok := sandboxOf(u.name); ok {
				head += headerName + ": " + u.name + "\r\n"
			}
		}
		u.err = u.say(head + "\r\n")
	})
	return u.err
}

// refuse answers in place of 101 and closes.
func (u *upgraded) refuse(a *answer) {
	u.once.Do(func() {
		u.err = errRefused
		head := fmt.Sprintf("HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n",
			a.status, http.StatusText(a.status), len(a.text)+1)
		if a.status == http.StatusServiceUnavailable {
			head += "Retry-After: " + retryAfter + "\r\n"
		}
		_ = u.say(head + "\r\n" + a.text + "\n")
	})
	_ = u.Close()
}

func (u *upgraded) say(s string) error {
	_ = u.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := io.WriteString(u.Conn, s)
	_ = u.SetWriteDeadline(time.Time{})
	if err != nil {
		_ = u.Close()
		return fmt.Errorf("answer the upgrade: %w", err)
	}
	return nil
}

// Read reads what the runner sent after its request. One goroutine may read.
func (u *upgraded) Read(p []byte) (n int, err error) {
	if err := u.accept(); err != nil {
		return 0, err
	}
	if u.early != nil && u.early.Buffered() > 0 {
		n, err = u.early.Read(p[:min(len(p), u.early.Buffered())])
	} else {
		u.early = nil
		n, err = u.Conn.Read(p)
	}
	if n > 0 && u.heard != nil {
		u.heard()
		u.heard = nil
	}
	return n, err
}

// Write writes to the runner.
func (u *upgraded) Write(p []byte) (int, error) {
	if err := u.accept(); err != nil {
		return 0, err
	}
	return u.Conn.Write(p)
}

// CloseWrite half-closes where the connection can.
func (u *upgraded) CloseWrite() error {
	if err := u.accept(); err != nil {
		return err
	}
	if c, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return u.Conn.Close()
}
