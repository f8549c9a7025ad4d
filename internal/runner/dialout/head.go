//go:build linux

package dialout

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster.dev/muster/internal/protocol"
)

const (
	maxHead  = 4 << 10 // bytes of an answer's head
	maxText  = 300     // bytes of a refusal that are shown
	maxToken = 128     // bytes of a session or a UID
)

// head is what matters of an answer's head.
type head struct {
	status     int
	upgrade    string
	session    string
	pod        string // the UID to show with the session
	name       string // to show besides; empty: none
	retryAfter string
	location   string
}

// readHead reads an answer up to its empty line, and not a byte further than
// br buffers.
func readHead(br *bufio.Reader) (head, error) {
	var h head
	left := maxHead
	line, err := readLine(br, &left)
	if err != nil {
		return h, err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	if h.status, err = strconv.Atoi(code); err != nil || !strings.HasPrefix(version, "HTTP/1.") || h.status < 100 || h.status > 599 {
		return h, protocol.Violation("%.60q is no answer of a gateway", line)
	}
	for {
		if line, err = readLine(br, &left); err != nil || line == "" {
			return h, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return h, protocol.Violation("header %.60q", line)
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "upgrade":
			h.upgrade = value
		case "retry-after":
			h.retryAfter = value
		case "location":
			h.location = value
		case "muster-name":
			h.name = value
		case "muster-session":
			h.session = value
		case "muster-pod":
			h.pod = value
		}
	}
}

// readLine reads one line of at most *left bytes, which it counts down.
func readLine(br *bufio.Reader, left *int) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", protocol.Violation("a head of more than %d bytes", maxHead)
		}
		line = append(line, part...)
		if err == bufio.ErrBufferFull { //nolint:errorlint // ReadSlice returns it as it is
			continue
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
	}
}

// readText reads why, for people.
func readText(br *bufio.Reader) string {
	b := make([]byte, maxText)
	n, _ := io.ReadFull(br, b)
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, strings.TrimSpace(string(b[:n])))
}

// token reports whether s can be shown in a header as it is.
func token(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
