package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// NATSServer is a NATS server with JetStream.
type NATSServer struct {
	*Process
	Address string // host:port
}

// URL is the address without credentials; scheme is nats or tls.
func (s *NATSServer) URL(scheme string) string { return scheme + "://" + s.Address }

// NATS starts a nats-server with JetStream on a directory of its own. More is
// added to its configuration: blocks such as authorization and tls.
func NATS(t testing.TB, more string) *NATSServer {
	t.Helper()
	program := Program(t, "nats-server")
	dir := t.TempDir()
	port := Port(t)
	s := &NATSServer{Address: Address(port)}
	conf := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf(`listen: "%s"
jetstream {
  store_dir: "%s"
  max_memory_store: 268435456
  max_file_store: 4294967296
}
%s
`, s.Address, filepath.Join(dir, "jetstream"), more)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Process = Start(t, Setup{Program: program, Args: []string{"-c", conf}, Ready: Dial(s.Address)})
	return s
}
