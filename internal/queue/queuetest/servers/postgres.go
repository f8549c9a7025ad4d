package servers

import (
	"bytes"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// PostgresPassword is the password of PostgresUser on every server of
// StartPostgres.
const (
	PostgresUser     = "muster"
	PostgresPassword = "s3cr3t pass'word/\\" // what careless quoting breaks
)

// Postgres is a PostgreSQL server with one superuser and the database
// "postgres".
type Postgres struct {
	*Process
	Port int
	dir  string
	own  *syscall.Credential
}

// PostgresSetup is what a test wants of a server beyond the usual.
type PostgresSetup struct {
	Settings []string          // "ssl=on"; added to those that make tests fast
	Files    map[string][]byte // written into the data directory, readable to the server only
	HBA      string            // pg_hba.conf; empty: passwords (SCRAM) on loopback
}

// StartPostgres makes a new database cluster and runs it until the end of the
// test. It refuses to run as root, so it runs as "postgres" or "nobody" then.
func StartPostgres(t testing.TB, s PostgresSetup) *Postgres {
	t.Helper()
	const debian = "/usr/lib/postgresql/*/bin"
	server, initdb, isReady := Program(t, "postgres", debian), Program(t, "initdb", debian), Program(t, "pg_isready", debian)
	p := &Postgres{Port: Port(t), own: unprivileged(t)}
	parent, err := os.MkdirTemp("", "muster-postgres-") //nolint:usetesting // the parents of t.TempDir are closed to another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(parent); err != nil {
			t.Error(err)
		}
	})
	p.dir = filepath.Join(parent, "data")
	p.write(t, filepath.Join(parent, "password"), []byte(PostgresPassword))
	if p.own != nil {
		if err := os.Chown(parent, int(p.own.Uid), int(p.own.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	init := exec.CommandContext(t.Context(), initdb, "-D", p.dir, "-U", PostgresUser, "--pwfile="+filepath.Join(parent, "password"), //nolint:gosec // found by Program
		"-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync")
	init.Dir, init.SysProcAttr = parent, &syscall.SysProcAttr{Credential: p.own}
	if out, err := init.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	for name, b := range s.Files {
		p.write(t, filepath.Join(p.dir, name), b)
	}
	if s.HBA != "" {
		p.write(t, filepath.Join(p.dir, "pg_hba.conf"), []byte(s.HBA))
	}
	args := []string{"-D", p.dir}
	for _, set := range append([]string{
		"listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=",
		// A test's data need not survive the machine, only the server.
		"fsync=off", "full_page_writes=off", "max_wal_size=4GB", "shared_buffers=64MB", "log_min_messages=fatal",
	}, s.Settings...) {
		args = append(args, "-c", set)
	}
	p.Process = Start(t, Setup{
		Program: server, Args: args, User: p.own, Stop: syscall.SIGINT, // SIGINT: "fast" shutdown
		Ready: func() error {
			//nolint:gosec // found by Program
			out, err := exec.Command(isReady, "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port)).CombinedOutput()
			if err != nil {
				return fmt.Errorf("pg_isready: %w %s", err, out)
			}
			return nil
		},
	})
	// Before Start's own: a server that is killed leaves shared memory behind.
	t.Cleanup(p.Stop)
	return p
}

// unprivileged is another user where we are root; else nil.
func unprivileged(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
	return nil
}

func (p *Postgres) write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.own != nil {
		if err := os.Chown(name, int(p.own.Uid), int(p.own.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// URL is where a client connects, with the password and without TLS; more is
// added to the query ("sslmode=require").
func (p *Postgres) URL(more ...string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(PostgresUser, PostgresPassword), Host: Address(p.Port), Path: "/postgres",
		RawQuery: strings.Join(append([]string{"sslmode=disable"}, more...), "&"),
	}
	return u.String()
}

// Freeze stops the server with all that serve connections; they are in
// sessions of their own, so that the group does not reach them.
func (p *Postgres) Freeze() (thaw func()) {
	postmaster := p.cmd.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", postmaster))
	all := []int{postmaster}
	for _, f := range bytes.Fields(children) {
		if pid, err := strconv.Atoi(string(f)); err == nil {
			all = append(all, pid)
		}
	}
	slices.Sort(all)
	for _, pid := range all { // the postmaster first, so that it makes no more
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	return sync.OnceFunc(func() {
		for _, pid := range all {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	})
}
