package servers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Redis is a redis-server of a test's own. It keeps what it was told across
// Stop and Kill.
type Redis struct {
	*Process
	Address string // host:port
	TLS     bool
}

// StartRedis starts one; args are added to its command line, in pairs such as
// "--requirepass", "secret".
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	r := &Redis{Address: Address(Port(t))}
	_, port, _ := net.SplitHostPort(r.Address)
	r.Process = Start(t, Setup{
		Program: Program(t, "redis-server"),
		Args: append([]string{
			"--bind", "127.0.0.1", "--port", port, "--dir", t.TempDir(),
			// The file is written before the client is answered; the disk need
			// not have it, since only the process ends.
			"--appendonly", "yes", "--appendfsync", "no", "--save", "",
			"--loglevel", "warning",
		}, args...),
		Ready: r.answers,
	})
	return r
}

// TLSFiles are PEM files: an authority, and a certificate of it with its key.
type TLSFiles struct{ CA, Cert, Key string }

// StartRedisTLS starts one that takes TLS connections only; clients need a
// certificate of the authority where mutual is set.
func StartRedisTLS(t testing.TB, f TLSFiles, mutual bool, args ...string) *Redis {
	t.Helper()
	r := &Redis{Address: Address(Port(t)), TLS: true}
	_, port, _ := net.SplitHostPort(r.Address)
	auth := "no"
	if mutual {
		auth = "yes"
	}
	r.Process = Start(t, Setup{
		Program: Program(t, "redis-server"),
		Args: append([]string{
			"--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--dir", t.TempDir(), "--save", "", "--loglevel", "warning",
			"--tls-ca-cert-file", f.CA, "--tls-cert-file", f.Cert, "--tls-key-file", f.Key, "--tls-auth-clients", auth,
		}, args...),
		Ready: Dial(r.Address),
	})
	return r
}

// StartRedisCluster starts a cluster of one node that has all slots.
func StartRedisCluster(t testing.TB) *Redis {
	t.Helper()
	r := StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(Port(t)))
	if said, err := r.ask("CLUSTER ADDSLOTSRANGE 0 16383"); err != nil || said != "+OK" {
		t.Fatalf("cluster: %q, %v", said, err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		said, err := r.ask("SET {ready} 1")
		if err == nil && said == "+OK" {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("the cluster is not ready: %q, %v", said, err)
		}
	}
}

// StartSentinel starts a sentinel that watches the server as "mymaster", and
// returns its address.
func StartSentinel(t testing.TB, master *Redis) string {
	t.Helper()
	host, port, _ := net.SplitHostPort(master.Address)
	s := &Redis{Address: Address(Port(t))}
	_, own, _ := net.SplitHostPort(s.Address)
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf") // it writes what it learns into it
	text := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor mymaster %s %s 1\n", own, dir, host, port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Process = Start(t, Setup{Program: Program(t, "redis-server"), Args: []string{conf, "--sentinel"}, Ready: s.answers})
	return s.Address
}

// answers is content once the server has loaded its data.
func (r *Redis) answers() error {
	said, err := r.ask("PING")
	if err != nil || strings.HasPrefix(said, "-LOADING") {
		return fmt.Errorf("not ready: %q, %v", said, err) //nolint:errorlint // err may be nil
	}
	return nil
}

// ask sends one command, and returns the first line of the answer.
func (r *Redis) ask(command string) (string, error) {
	c, err := net.DialTimeout("tcp", r.Address, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}
