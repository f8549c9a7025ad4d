package servers

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RabbitMQSetup says how a test's RabbitMQ differs from the usual: one plain
// listener, the management plugin, one administrator.
type RabbitMQSetup struct {
	// CA, Cert and Key are PEM files; with them there is a TLS listener that
	// takes clients with and without a certificate, and the EXTERNAL mechanism,
	// whose user is the common name.
	CA, Cert, Key string
	Conf          []string // more lines of rabbitmq.conf
}

// RabbitMQ is a RabbitMQ node of a test's own, with its own port mapper.
type RabbitMQ struct {
	*Process
	Address    string // AMQP, host:port
	TLS        string // AMQP with TLS, host:port; empty without certificates
	Management string // http://host:port
	User       string
	Password   string
}

// StartRabbitMQ starts a node on loopback ports and in a directory of its own;
// statistics are a second old at most instead of 5 s. It takes about 6 s
// to start and as long to stop in order.
func StartRabbitMQ(t testing.TB, s RabbitMQSetup) *RabbitMQ {
	t.Helper()
	// The script below Debian's wrapper, which insists on the system's own
	// directories and user.
	program := Program(t, "rabbitmq-server", "/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin")
	if below := "/usr/lib/rabbitmq/bin/rabbitmq-server"; exists(below) {
		program = below
	}
	mapper := Program(t, "epmd", "/usr/lib/erlang/bin", "/usr/lib/erlang/erts-*/bin")
	ports := distinct(t, 5)
	r := &RabbitMQ{
		Address: Address(ports[0]), Management: "http://" + Address(ports[1]),
		User: "muster", Password: rand.Text(),
	}
	dir := t.TempDir()
	conf := append([]string{
		"listeners.tcp.1 = " + r.Address,
		"management.tcp.ip = 127.0.0.1",
		fmt.Sprintf("management.tcp.port = %d", ports[1]),
		// Statistics are as old as the finest grain they are kept in.
		"collect_statistics_interval = 100",
		"management.sample_retention_policies.global.minute = 1",
		"management.sample_retention_policies.basic.minute = 1",
		"management.sample_retention_policies.detailed.minute = 1",
		"default_user = " + r.User, "default_pass = " + r.Password,
		"default_user_tags.administrator = true",
		"log.console = true", "log.console.level = warning", "log.file = false",
		// The node shares a small machine with others: no alarm for want of
		// memory or disk that is not its own.
		"vm_memory_high_watermark.relative = 0.8", "disk_free_limit.absolute = 50MB",
	}, s.Conf...)
	plugins := "[rabbitmq_management]."
	if s.Cert != "" {
		r.TLS = Address(ports[4])
		plugins = "[rabbitmq_management,rabbitmq_auth_mechanism_ssl]."
		conf = append(conf, "listeners.ssl.1 = "+r.TLS,
			"ssl_options.cacertfile = "+s.CA, "ssl_options.certfile = "+s.Cert, "ssl_options.keyfile = "+s.Key,
			"ssl_options.verify = verify_peer", "ssl_options.fail_if_no_peer_cert = false",
			"ssl_cert_login_from = common_name", "auth_mechanisms.1 = PLAIN", "auth_mechanisms.2 = EXTERNAL")
	}
	for name, text := range map[string]string{"rabbitmq.conf": strings.Join(conf, "\n") + "\n", "plugins": plugins + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The port mapper runs in the foreground, so that it ends with the test; the
	// node would leave one of its own behind.
	Start(t, Setup{Program: mapper, Args: []string{"-port", fmt.Sprint(ports[2]), "-address", "127.0.0.1"}, Ready: Dial(Address(ports[2]))})
	r.Process = Start(t, Setup{
		Program: program, Env: rabbitEnv(dir, ports[2], ports[3]),
		Ready: func() error {
			if err := Dial(strings.TrimPrefix(r.Management, "http://"))(); err != nil {
				return err
			}
			return Dial(r.Address)()
		},
	})
	return r
}

// rabbitEnv keeps the node away from what is the system's; the variables are
// those of rabbitmq-env(5) and of the start script.
func rabbitEnv(dir string, mapper, distribution int) []string {
	in := func(name string) string { return filepath.Join(dir, name) }
	return []string{
		"HOME=" + dir, // of the cookie
		fmt.Sprintf("ERL_EPMD_PORT=%d", mapper), "ERL_EPMD_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_NODENAME=muster%d@localhost", distribution),
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distribution),
		"RABBITMQ_CONF_ENV_FILE=" + in("none"),
		"RABBITMQ_CONFIG_FILE=" + in("rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + in("plugins"),
		"RABBITMQ_MNESIA_BASE=" + in("mnesia"), "RABBITMQ_LOG_BASE=" + in("log"),
		"RABBITMQ_PLUGINS_EXPAND_DIR=" + in("expand"), "RABBITMQ_GENERATED_CONFIG_DIR=" + in("generated"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}",
		"detached=1", // the script then becomes the node, rather than wait for a child
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// distinct returns n free ports.
func distinct(t testing.TB, n int) []int {
	t.Helper()
	seen := map[int]bool{}
	var out []int
	for len(out) < n {
		if p := Port(t); !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	return out
}
