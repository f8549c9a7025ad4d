package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/queue/connect"
)

// How much is fetched ahead, at most: enough that Receive answers from memory,
// little enough that a million waiting messages stay with the broker.
const (
	fetchBytes     = 8 << 20  // of one broker's answer
	partitionBytes = 1 << 20  // of one partition in it; a larger record comes alone
	batchBytes     = 64 << 20 // of a record set aside; the broker's own bound is lower
)

// options are the client's settings.
func (s *Source) options() []kgo.Opt {
	c := &s.cfg
	opts := []kgo.Opt{
		kgo.ClientID("muster"), kgo.SeedBrokers(c.Brokers...), kgo.Dialer(s.dial), kgo.WithHooks(&s.contact),
		kgo.DisableClientMetrics(), // KIP-714: nobody asked for them, and they hold up the close
		// A broker that hangs is noticed after this and another asked.
		kgo.RequestTimeoutOverhead(5 * time.Second), kgo.DialTimeout(3 * time.Second),
		kgo.RetryBackoffFn(func(n int) time.Duration {
			b := connect.Backoff{Most: 2 * time.Second}
			for range min(n, 6) {
				b.Next()
			}
			return b.Next()
		}),
	}
	if !c.ReadOnly {
		opts = append(opts, s.membership()...)
	}
	if m := c.mechanism(); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// membership is what makes the client consume, and write what is set aside.
func (s *Source) membership() []kgo.Opt {
	c := &s.cfg
	opts := []kgo.Opt{
		kgo.ConsumerGroup(c.Group), kgo.ConsumeTopics(c.Topic), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(c.Session), kgo.HeartbeatInterval(c.Session / 10),
		kgo.RebalanceTimeout(max(60*time.Second, *c.Handover+30*time.Second)),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// Records of a transaction that is not committed are no messages yet;
		// markers are kept to know that nothing waits at their offsets.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.OnOffsetsFetched(s.assigned), kgo.OnPartitionsRevoked(s.revoked), kgo.OnPartitionsLost(s.lost),

		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite(), kgo.ProducerBatchMaxBytes(batchBytes),
	}
	if c.Member != "" {
		opts = append(opts, kgo.InstanceID(c.Member))
	}
	return opts
}

// mechanism authenticates with the credential as it is at that moment.
func (c *Config) mechanism() sasl.Mechanism {
	shared := func(ctx context.Context) (scram.Auth, error) {
		pass, err := c.Password.Value(ctx)
		return scram.Auth{User: c.User, Pass: pass}, err
	}
	switch c.Mechanism {
	case "PLAIN":
		return plain.Plain(func(ctx context.Context) (plain.Auth, error) {
			pass, err := c.Password.Value(ctx)
			return plain.Auth{User: c.User, Pass: pass}, err
		})
	case "SCRAM-SHA-256":
		return scram.Sha256(shared)
	case "SCRAM-SHA-512":
		return scram.Sha512(shared)
	case "OAUTHBEARER":
		return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := c.Password.Value(ctx)
			return oauth.Auth{Token: token}, err
		})
	}
	return nil
}

// dial opens a connection with the TLS files as they are at that moment.
func (s *Source) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conf, err := s.cfg.TLS.Config()
	if err != nil {
		return nil, err
	}
	conn, err := s.network(ctx, network, host)
	if err != nil || conf == nil {
		return conn, err
	}
	if conf.ServerName == "" {
		conf.ServerName, _, _ = net.SplitHostPort(host)
	}
	secure := tls.Client(conn, conf)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secure, nil
}

// contact notes how the brokers answer; the client calls it.
type contact struct {
	mu     sync.Mutex
	beat   time.Time // when the group's coordinator last answered
	failed error     // since the last answer of any broker
	since  time.Time // of failed
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c *contact) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		c.note(0, err)
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (c *contact) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) { c.note(key, e.Err()) }

func (c *contact) note(key int16, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil:
		if c.failed == nil {
			c.since = now
		}
		if key == kmsg.SASLAuthenticate.Int16() && errors.Is(err, io.EOF) {
			// Some end the connection rather than say so.
			err = fmt.Errorf("%w: the broker closed the connection while we authenticated", fleet.ErrDenied)
		} else if errors.Is(c.failed, fleet.ErrDenied) && errors.Is(err, io.EOF) {
			return // the same connection's
		}
		c.failed = err
	case key == kmsg.ApiVersions.Int16() || key == kmsg.SASLHandshake.Int16() || key == kmsg.SASLAuthenticate.Int16():
		// Anybody gets an answer to these.
	default:
		c.failed = nil
		if key == kmsg.Heartbeat.Int16() || key == kmsg.JoinGroup.Int16() || key == kmsg.SyncGroup.Int16() {
			c.beat = now
		}
	}
}

// trouble is why the brokers cannot be reached, nil where they can; a failure
// of a moment, as when one broker hands over to another, is none.
func (c *contact) trouble(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil && now.Sub(c.since) > 500*time.Millisecond {
		return c.failed
	}
	return nil
}

// refused is the error of the last attempt to authenticate, nil if it was taken.
func (c *contact) refused() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.failed, fleet.ErrDenied) {
		return c.failed
	}
	return nil
}

// silent reports that the group's coordinator did not answer for the span.
func (c *contact) silent(now time.Time, span time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.beat) > span
}
