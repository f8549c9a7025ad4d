package client

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// DefaultServer is where `muster up` listens unless told otherwise.
const DefaultServer = "http://127.0.0.1:7433"

// Place says where a server is and how to be let in.
type Place struct {
	Server    string
	Token     string
	TokenFrom string // for people: $MUSTER_TOKEN, or a path
	DataDir   string
	// Local says that the address is the one the data directory's `muster up`
	// wrote; a restart may write another.
	Local bool
}

// Search says where to look; empty fields fall back as [Locate] describes.
type Search struct {
	Server    string // --server
	TokenFile string // --token-file
	DataDir   string // --data
	Fleet     string // --fleet: NAMESPACE/NAME, where a server has several
	Getenv    func(string) string
	UID       int
}

// DataDir is $MUSTER_HOME, else /var/lib/muster for root, else
// $XDG_STATE_HOME/muster, else ~/.local/state/muster.
func DataDir(getenv func(string) string, uid int) string {
	if d := getenv("MUSTER_HOME"); d != "" {
		return d
	}
	if uid == 0 {
		return "/var/lib/muster"
	}
	if d := getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "muster")
	}
	return filepath.Join(getenv("HOME"), ".local", "state", "muster")
}

// Locate finds the server: the flag, $MUSTER_SERVER, the address that the
// data directory's `muster up` wrote, the default. And the token:
// $MUSTER_TOKEN, the flag's file, the data directory's. The data directory's
// token is offered to a server on this machine only, so that a mistyped
// address does not hand it to a stranger.
func Locate(s Search) (Place, error) {
	if s.DataDir == "" {
		s.DataDir = DataDir(s.Getenv, s.UID)
	}
	p := Place{Server: s.Server, DataDir: s.DataDir}
	if p.Server == "" {
		p.Server = s.Getenv("MUSTER_SERVER")
	}
	if p.Server == "" {
		if b, err := os.ReadFile(filepath.Join(s.DataDir, "address")); err == nil {
			p.Server, p.Local = strings.TrimSpace(string(b)), true
		}
	}
	if p.Server == "" {
		p.Server = DefaultServer
	}
	base, err := parseServer(p.Server)
	if err != nil {
		return p, err
	}
	p.Server = base.String()
	if p.Server, err = atFleet(s, p.Server); err != nil {
		return p, err
	}
	return p, findToken(s, &p, base.Hostname())
}

func findToken(s Search, p *Place, host string) error {
	switch {
	case s.TokenFile != "":
		b, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return &Error{Text: "read the token: " + err.Error(), Cause: err, Hint: "check --token-file", Kind: ErrUsage}
		}
		p.Token, p.TokenFrom = strings.TrimSpace(string(b)), s.TokenFile
		if p.Token == "" {
			return &Error{Text: fmt.Sprintf("the token file %s is empty", s.TokenFile), Kind: ErrUsage}
		}
	case s.Getenv("MUSTER_TOKEN") != "":
		p.Token, p.TokenFrom = strings.TrimSpace(s.Getenv("MUSTER_TOKEN")), "$MUSTER_TOKEN"
	case loopback(host):
		path := filepath.Join(s.DataDir, "token")
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return &Error{Text: "read the token: " + err.Error(), Cause: err}
		}
		if err == nil {
			p.Token, p.TokenFrom = strings.TrimSpace(string(b)), path
		}
	}
	if strings.ContainsFunc(p.Token, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return &Error{Text: fmt.Sprintf("the token from %s holds characters a token cannot have", p.TokenFrom), Kind: ErrUsage}
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// atFleet is the address of one fleet of a server: the flag's, $MUSTER_FLEET's,
// or the server itself.
func atFleet(s Search, server string) (string, error) {
	fleet, from := s.Fleet, "--fleet"
	if fleet == "" {
		fleet, from = s.Getenv("MUSTER_FLEET"), "$MUSTER_FLEET"
	}
	if fleet == "" {
		return server, nil
	}
	namespace, name, ok := strings.Cut(fleet, "/")
	if !ok || namespace == "" || name == "" || strings.ContainsAny(name, "/?#% ") || strings.ContainsAny(namespace, "?#% ") {
		return "", &Error{Text: fmt.Sprintf("%s %q names no fleet", from, fleet), Hint: "write it as NAMESPACE/NAME; `kubectl get fleets -A` lists them", Kind: ErrUsage}
	}
	return server + "/fleets/" + namespace + "/" + name, nil
}
